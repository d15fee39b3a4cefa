import pytest
import torch
from torch import nn

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.graph import DMSChannelAnalyzer


def join(*parts):
    return torch.cat(parts, dim=1)


class Keeps(nn.Module):
    """Keeps a function that it finds while it is traced."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 4, 1)
        self.two = nn.Conv2d(8, 4, 1)
        self.join = None

    def forward(self, x):
        type(self).join = staticmethod(join)
        x = self.one(x)
        return self.two(join(x, x))


@pytest.fixture
def torch_functions():
    return {key: id(value) for key, value in vars(torch).items()}


def test_nothing_of_torch_stays_wrapped(torch_functions):
    DMSChannelAnalyzer(demo_input=(1, 3, 8, 8)).analyze_groups(Keeps())
    Keeps.join(torch.rand(1, 1), torch.rand(1, 1))
    changed = [
        key
        for key, value in vars(torch).items()
        if key in torch_functions and id(value) != torch_functions[key]
    ]
    assert not changed
