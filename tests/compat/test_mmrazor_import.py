import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
MODERN = int(torch.__version__.split('.')[0]) >= 2


def python(script):
    """Run a script in a process of its own."""
    return subprocess.run(
        [sys.executable, '-c', script],
        cwd=str(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.skipif(not MODERN, reason='torch < 2 has nothing to cure')
def test_the_symptom_is_still_there():
    """Once this fails, the workaround can go."""
    done = python('import mmrazor.models')
    assert done.returncode != 0
    assert 'ImportError' in done.stdout


def test_the_workaround_imports_mmrazor_and_restores_the_version():
    script = """
import torch
version = torch.__version__
kind = type(version)
from dms_mmrazor import compat
compat.apply()
assert torch.__version__ == version and type(torch.__version__) is kind
import mmrazor.engine
import mmrazor.models
from mmrazor.registry import MODELS
from mmrazor.models.mutators import ChannelMutator
assert MODELS.get('ChannelMutator') is ChannelMutator
compat.apply()
assert torch.__version__ == version
print('done')
"""
    done = python(script)
    assert done.stdout.splitlines()[-1:] == ['done'], done.stdout


def test_the_version_is_restored_after_a_failure():
    script = """
import sys
import torch
version = torch.__version__
sys.modules['mmrazor'] = None
from dms_mmrazor.compat import import_mmrazor
try:
    import_mmrazor()
except ImportError:
    assert torch.__version__ == version
    print('done')
"""
    done = python(script)
    assert done.stdout.splitlines()[-1:] == ['done'], done.stdout


def test_the_registry_may_be_the_first_import():
    script = """
from dms_mmrazor.registry import MODELS
assert 'ChannelMutator' in MODELS.module_dict
print('done')
"""
    done = python(script)
    assert done.stdout.splitlines()[-1:] == ['done'], done.stdout


def test_the_plugin_registers_everything(zoo):
    from dms_mmrazor.registry import (
        HOOKS,
        MODELS,
        OPTIM_WRAPPER_CONSTRUCTORS,
        TASK_UTILS,
    )

    names = {
        MODELS: [
            'DMSAlgorithm',
            'DMSChannelUnit',
            'DMSDepthUnit',
            'DMSMutator',
            'DMSSubModel',
        ],
        HOOKS: ['ResourceHook'],
        OPTIM_WRAPPER_CONSTRUCTORS: ['DMSOptimWrapperConstructor'],
        TASK_UTILS: ['DMSChannelAnalyzer'],
    }
    for registry, wanted in names.items():
        assert registry.scope == 'mmrazor'
        assert set(wanted) <= set(registry.module_dict)
