"""Classes of anybody's that are told by what they compute."""

import pytest
from torch import nn

from dms_mmrazor.layers.layer_norm import channel_first_norm
from dms_mmrazor.layers.own_layers import folds, normalizes


def exhausted(*args, **kwargs):
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


class UnmadeNorm(nn.LayerNorm):
    __init__ = exhausted


class UnrunNorm(nn.LayerNorm):
    forward = exhausted


class UnrunLinear(nn.Linear):
    forward = exhausted


class OtherNorm(nn.LayerNorm):
    """Its code does not run on what it is tried with."""

    def forward(self, x):
        raise ValueError('other inputs')


TRIALS = {
    'made': lambda: normalizes(UnmadeNorm, (2, 6)),
    'run': lambda: normalizes(UnrunNorm, (2, 6)),
    'folded': lambda: folds(UnrunLinear, (6, 4), (2, 6), -1),
    'channels first': lambda: channel_first_norm(UnrunNorm),
}


@pytest.mark.parametrize('name', TRIALS)
def test_memory_that_runs_out_is_no_answer_of_a_class(name):
    with pytest.raises(RuntimeError, match="can't allocate"):
        TRIALS[name]()


def test_an_error_of_its_code_is_an_answer():
    assert not normalizes(OtherNorm, (2, 6))
    assert channel_first_norm(OtherNorm) is None
