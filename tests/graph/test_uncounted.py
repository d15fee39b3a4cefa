"""Products outside of layers are found, so that nobody is misled."""

import pytest
import torch
from torch import nn

from dms_mmrazor.graph import count_macs
from dms_mmrazor.graph.uncounted import (
    uncounted_macs,
    uncounted_warning,
)

OLD = tuple(map(int, torch.__version__.split('.')[:2])) < (2, 1)
SIZE = (2, 3, 8, 8)


class OwnProduct(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(10, 4))
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return nn.functional.linear(self.inner(x), self.weight)


def model():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(2),
        nn.Linear(4, 4),
        OwnProduct(),
    )


@pytest.mark.skipif(OLD, reason='no counter of operators before torch 2.1')
def test_own_products_are_found():
    found = uncounted_macs(model(), SIZE)
    assert found == {'4': 4 * 10 * 4}  # positions x outputs x inputs
    counted = count_macs(model(), SIZE)
    assert counted == 64 * 3 * 4 * 9 + 2 * 4 * 4 * 4


def test_layers_are_not_found():
    assert uncounted_macs(model()[:4], SIZE) == {}


def test_warning_names_the_largest():
    found = {'a': 1.0, 'b': 3.0, 'c': 2.0, 'd': 2.0}
    text = uncounted_warning(found, 24.0)
    assert text.startswith('25.0% of the MACs are not counted: `b`, `c`, `d`')
    assert 'and 1 more' in text


def test_no_warning_below_a_percent():
    assert uncounted_warning({'dfl': 1.0}, 99.5) == ''
    assert uncounted_warning({}, 0.0) == ''
