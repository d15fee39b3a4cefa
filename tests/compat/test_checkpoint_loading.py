"""Checkpoints of mmengine load, and nothing in them is run."""

import functools
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer

from dms_mmrazor.compat import allow_mmengine_checkpoints, load_safely
from dms_mmrazor.compat.checkpoint_loading import (
    TORCH_CHECKS,
    history_statistic,
    mmengine_globals,
)

LOAD = """
import sys
import torch
if sys.argv[2] == 'with':
    from dms_mmrazor.compat import allow_mmengine_checkpoints
    allow_mmengine_checkpoints()
from mmengine.runner import CheckpointLoader
checkpoint = CheckpointLoader.load_checkpoint(sys.argv[1])
history = checkpoint['message_hub']['log_scalars']['loss']
print(history.mean(), checkpoint['message_hub']['runtime_info']['eta'])
"""


@pytest.fixture
def checkpoint(tmp_path):
    """What mmengine saves beside weights, in its own types."""
    history = HistoryBuffer([1.0, 2.0, 6.0], [1, 1, 1])
    path = str(tmp_path / 'iter_3.pth')
    torch.save(
        dict(
            meta=dict(iter=3, dataset_meta=dict(classes=('a', 'b'))),
            state_dict=dict(
                weight=torch.ones(2), flag=torch.tensor([True, False])
            ),
            message_hub=dict(
                log_scalars=dict(loss=history),
                runtime_info=dict(
                    eta=np.float64(2.5),
                    best=np.float32(0.5),
                    palette=np.zeros((2, 3), np.uint8),
                ),
            ),
            optimizer=dict(param_groups=[dict(lr=0.1, params=[0])]),
        ),
        path,
    )
    return path


def load_elsewhere(path, how):
    """Load by mmengine in a new process, with or without the workaround."""
    return subprocess.run(
        [sys.executable, '-c', LOAD, path, how],
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(not TORCH_CHECKS, reason='torch < 2.6 checks nothing')
def test_mmengine_cannot_load_its_own_checkpoint(checkpoint):
    """If this fails, the workaround can go."""
    done = load_elsewhere(checkpoint, 'without')
    assert done.returncode != 0
    assert 'Unsupported global' in done.stderr


def test_mmengine_loads_its_own_checkpoint(checkpoint):
    done = load_elsewhere(checkpoint, 'with')
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ['3.0', '2.5']


def test_load_safely(checkpoint):
    allow_mmengine_checkpoints()
    content = load_safely(checkpoint)
    hub = content['message_hub']
    assert hub['log_scalars']['loss'].statistics('max') == 6
    assert hub['runtime_info']['palette'].shape == (2, 3)
    assert content['optimizer']['param_groups'][0]['lr'] == 0.1
    assert content['state_dict']['flag'].tolist() == [True, False]


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('new_format', [True, False])
@pytest.mark.parametrize('function', [os.mkdir, os.makedirs])
def test_code_is_not_run(function, new_format, tmp_path):
    allow_mmengine_checkpoints()
    made = str(tmp_path / 'made')
    path = str(tmp_path / 'evil.pth')
    torch.save(
        dict(state_dict=dict(weight=Call(function, made))),
        path,
        _use_new_zipfile_serialization=new_format,
    )
    with pytest.raises(pickle.UnpicklingError):
        load_safely(path)
    assert not os.path.exists(made)


@pytest.mark.parametrize(
    'owner, name',
    [
        (HistoryBuffer, '__init__'),
        (HistoryBuffer, 'register_statistics'),
        (np.ndarray, 'max'),
        (functools.partial, 'min'),
    ],
)
def test_getattr_reaches_nothing_else(owner, name, tmp_path):
    allow_mmengine_checkpoints()
    path = str(tmp_path / 'evil.pth')
    torch.save(dict(state_dict=Call(getattr, owner, name)), path)
    with pytest.raises(pickle.UnpicklingError):
        load_safely(path)
    with pytest.raises(pickle.UnpicklingError, match='no checkpoint'):
        history_statistic(owner, name)


def test_nothing_general_is_allowed():
    values = list(mmengine_globals().values())
    for general in (getattr, setattr, eval, exec, __import__, open, type):
        assert general not in values
    if TORCH_CHECKS:
        allowed = torch.serialization.get_safe_globals()
        assert getattr not in allowed
