"""A device that gives up is no answer of whoever's code was tried."""

import pytest
import torch
from torch import nn

from dms_mmrazor.engine import checkpoint_files
from dms_mmrazor.graph.channel_analyzer import DMSChannelAnalyzer
from dms_mmrazor.layers.foreign_attention import fit_foreign_attentions
from dms_mmrazor.layers.layer_norm import channel_first_norm
from dms_mmrazor.layers.own_layers import made, same
from dms_mmrazor.subnet import surgery
from dms_mmrazor.subnet.structure import (
    LayerSlice,
    Structure,
    UnitStructure,
)


class Failing(nn.LayerNorm):
    """A layer whose code raises what a test says."""

    message = ''

    def forward(self, x):
        raise RuntimeError(self.message)


class Attention(nn.Module):
    """Its layers have been narrowed, so that it is tried first."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.norm = 2, Failing(6)
        self.qkv, self.proj = nn.Linear(6, 24), nn.Linear(8, 6)

    def forward(self, x):
        return self.proj(self.qkv(self.norm(x))[..., :8])


def raiser(message):
    """A function that raises instead of doing its work."""

    def fail(*args, **kwargs):
        raise RuntimeError(message)

    return fail


def attention(patch, message):
    model = nn.Sequential(Attention())
    fit_foreign_attentions(model)
    # The trial alone: what comes after it would run out, too.
    model[0]._runs(torch.rand(1, 3, 6))


def constructor(patch, message):
    made(raiser(message), 6)


def own_layer(patch, message):
    x = torch.rand(1, 6)
    same(Failing(6), x, x)


def channel_first(patch, message):
    # A class of its own: what a class is, is found out once.
    channel_first_norm(type('Norm', (Failing,), {}))


def trace(patch, message):
    analyzer = DMSChannelAnalyzer(demo_input=(1, 3, 8, 8))
    patch.setattr(analyzer, '_channel_graph', raiser(message))
    analyzer.analyze_groups(nn.Sequential(nn.Conv2d(3, 4, 1)))


def checkpoint(patch, message):
    patch.setattr(checkpoint_files, 'load_safely', raiser(message))
    checkpoint_files.read_checkpoint(__file__)


def cut(patch, message):
    patch.setattr(surgery, 'narrow_layer', raiser(message))
    outputs = (LayerSlice('0', 0, 4),)
    unit = UnitStructure('0', 4, (0, 2), outputs, ())
    structure = Structure((unit,), (), 1, 4, {}, {})
    surgery.prune(nn.Sequential(nn.Conv2d(3, 4, 1)), structure)


TRIALS = (
    attention,
    constructor,
    own_layer,
    channel_first,
    trace,
    checkpoint,
    cut,
)


@pytest.mark.parametrize('trial', TRIALS)
def test_memory_that_runs_out_is_passed_on(trial, monkeypatch):
    message = 'CUDA out of memory'
    monkeypatch.setattr(Failing, 'message', message)
    with pytest.raises(RuntimeError, match=f'^{message}'):
        trial(monkeypatch, message)
