"""The examples run as the README says."""

import importlib.util
import os.path as osp
import subprocess
import sys

import pytest

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))


def run(name, folder, *options):
    """What an example prints; it leaves a structure in the folder."""
    pytest.importorskip('sklearn')
    found = subprocess.run(
        [sys.executable, f'examples/{name}', *options, '--target', '0.7']
        + ['--out', str(folder / 'subnet.yaml')],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert (folder / 'subnet.yaml').is_file()
    return found.stdout


def test_plain_pytorch(tmp_path):
    options = ['--search-epochs', '1', '--epochs', '1']
    text = run('plain_pytorch.py', tmp_path, *options)
    assert 'searched: ' in text and 'whole: ' in text


@pytest.mark.parametrize('library', ['accelerate', 'lightning'])
def test_loops_of_other_libraries(library, tmp_path):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f'{library} is not installed')
    text = run(f'with_{library}.py', tmp_path, '--epochs', '1')
    assert "'target'" in text
