"""Values that nobody reads do not hold what they are made of."""

import pytest
import torch
from torch import nn

from dms_mmrazor import Search


class Net(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.one = nn.Conv2d(3, 16, 3, padding=1)
        self.two = nn.Conv2d(16, 16, 3, padding=1)
        self.side = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 4)
        self.mode = mode

    def forward(self, x):
        x = self.two(self.one(x).relu()).relu()
        if self.mode == 'dropped':
            _ = (x * 2).flatten(1)
        if self.mode == 'joined':
            _ = x + self.side(x)
        if self.mode == 'kept':
            self.feature = x.mean((2, 3))
        if self.mode == 'written':
            x = x * 2
            x.add_(1)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize(
    'mode, searched',
    [('dropped', True), ('joined', True), ('kept', False), ('written', False)],
)
def test_what_is_dropped_is_no_output(mode, searched):
    torch.manual_seed(0)
    x = torch.rand(2, 3, 8, 8)
    search = Search(Net(mode), x, 0.6, total_steps=4)
    names = [unit.name for unit in search.mutator.searched_units]
    assert names == (['one', 'two'] if searched else ['one'])
    for _ in range(4):
        search.model(x).square().mean().backward()
        search.step()
    subnet = search.export(divisor=1)
    assert subnet.difference < 1e-5
    subnet.model.train()(x).sum().backward()
