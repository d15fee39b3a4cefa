import pytest
import torch
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.demo import small_shape
from dms_mmrazor.graph.layer_profile import profile_layers, run_first
from dms_mmrazor.graph.uncounted import uncounted_macs


class Model(nn.Module):
    """A convolution and a product of its own; counts its calls."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.weight = nn.Parameter(torch.rand(5, 4))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        x = self.conv(x).mean((2, 3))
        return nn.functional.linear(x, self.weight)


def test_one_pass_tells_what_several_do():
    model, size = Model(), (2, 3, 8, 8)
    first = run_first(model, size)
    assert model.calls == 1
    assert first.layers == profile_layers(model, size)
    assert first.uncounted == uncounted_macs(model, size)
    assert not any(m._forward_hooks for m in model.modules())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_an_input_that_does_not_fit_is_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(DMSError, match='demo_input'):
        run_first(model, (1, 3, 8, 8))
    assert not any(m._forward_hooks for m in model.modules())


def test_a_small_input_where_the_model_takes_it():
    conv = nn.Conv2d(3, 4, 3)
    assert small_shape(conv, (2, 3, 600, 320)) == (2, 3, 128, 128)
    assert small_shape(conv, (1, 3, 600, 64)) == (1, 3, 128, 64)
    assert small_shape(conv, (1, 3, 32, 32)) == (1, 3, 32, 32)
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 160 * 160, 1))
    assert small_shape(fixed, (1, 3, 160, 160)) == (1, 3, 160, 160)
