import subprocess
import sys
from pathlib import Path

import mmcv
import pytest

ROOT = Path(__file__).parents[2]
REFUSED = not mmcv.__version__.startswith('2.0.')


def python(script):
    """Run a script in a process of its own."""
    return subprocess.run(
        [sys.executable, '-c', script],
        cwd=str(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.skipif(not REFUSED, reason='mmcv 2.0 has nothing to cure')
def test_the_symptom_is_still_there():
    """Once this fails, the workaround can go."""
    done = python('import mmyolo')
    assert done.returncode != 0
    assert 'AssertionError: MMCV==2.1' in done.stdout


def test_the_workaround_imports_mmyolo_and_restores_the_version():
    script = """
import mmcv
version = mmcv.__version__
from dms_mmrazor import compat
compat.apply()
assert mmcv.__version__ == version
import mmyolo.models
from mmyolo.registry import MODELS
assert 'YOLODetector' in MODELS.module_dict
print('done')
"""
    done = python(script)
    assert done.stdout.splitlines()[-1:] == ['done'], done.stdout


def test_mmyolo_is_built_through_this_registry():
    script = """
from dms_mmrazor.registry import MODELS
backbone = MODELS.build(dict(
    type='mmyolo.YOLOv8CSPDarknet', widen_factor=0.125, deepen_factor=0.33
))
assert type(backbone).__module__.startswith('mmyolo.')
print('done')
"""
    done = python(script)
    assert done.stdout.splitlines()[-1:] == ['done'], done.stdout


@pytest.mark.parametrize('missing', ['mmcv', 'mmdet', 'mmyolo'])
def test_what_is_missing_is_left_to_who_needs_it(missing):
    script = f"""
import sys
sys.modules[{missing!r}] = None
from dms_mmrazor.compat import import_mmyolo
import_mmyolo()
print('done')
try:
    import mmyolo
except ImportError as error:
    assert {missing!r} in str(error)
    print('told')
"""
    done = python(script)
    assert done.stdout.splitlines() == ['done', 'told'], done.stdout


@pytest.mark.skipif(not REFUSED, reason='mmcv 2.0 has nothing to cure')
def test_an_untried_mmcv_is_left_to_its_check():
    script = """
import mmcv
import mmdet
mmcv.__version__ = '2.9.0'
from dms_mmrazor.compat import import_mmyolo
import_mmyolo()
try:
    import mmyolo
except AssertionError as error:
    assert 'MMCV==2.9.0' in str(error)
    print('told')
"""
    done = python(script)
    assert done.stdout.splitlines()[-1:] == ['told'], done.stdout
