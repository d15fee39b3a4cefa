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
    code = f'from dms_mmrazor import registry; {IMPORT}; import sys; '
    found = run(f'{code}print("transformers.modeling_utils" in sys.modules)')
    assert found.returncode == 0, found.stderr
    assert found.stdout.split()[-1] == 'False'


def test_it_is_still_needed():
    found = run(IMPORT)
    assert found.returncode and 'NoneType' in found.stderr
