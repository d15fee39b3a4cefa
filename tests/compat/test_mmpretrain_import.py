import subprocess
import sys

import pytest

pytest.importorskip('mmpretrain')
pytest.importorskip('transformers')

IMPORT = 'import mmpretrain.models'


def run(code):
    return subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )


def test_mmpretrain_imports_beside_transformers():
    found = run(f'from dms_mmrazor import registry; {IMPORT}')
    assert found.returncode == 0, found.stderr
    found = run(
        f'import mmpretrain; from dms_mmrazor import registry; {IMPORT}'
    )
    assert found.returncode == 0, found.stderr


def test_it_is_still_needed():
    found = run(IMPORT)
    assert found.returncode and 'NoneType' in found.stderr
