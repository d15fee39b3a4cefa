import os
import stat

import pytest

from dms_mmrazor.files import written_at_once


def write(path, text):
    with open(path, 'w') as file:
        file.write(text)


def test_makes_the_folder(tmp_path):
    path = tmp_path / 'new' / 'file.txt'
    with written_at_once(str(path)) as temporary:
        write(temporary, 'text')
        assert not path.exists()
    assert path.read_text() == 'text'
    assert os.listdir(str(path.parent)) == ['file.txt']


def test_failure_leaves_the_former_file(tmp_path):
    path = tmp_path / 'file.txt'
    path.write_text('former')
    with pytest.raises(KeyboardInterrupt):
        with written_at_once(str(path)) as temporary:
            write(temporary, 'half')
            raise KeyboardInterrupt
    assert path.read_text() == 'former'
    assert os.listdir(str(tmp_path)) == ['file.txt']


def test_permissions_follow_the_umask(tmp_path):
    path = tmp_path / 'file.txt'
    before = os.umask(0o027)
    try:
        with written_at_once(str(path)) as temporary:
            write(temporary, 'text')
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
