"""Vectors of which maps are made, as in generators and decoders."""

import pytest
import torch
from torch import nn

from dms_mmrazor import Search

WAYS = {
    'view': lambda net, x: x.view(len(x), -1, 4, 4),
    'unflatten': lambda net, x: x.unflatten(1, (-1, 4, 4)),
    'module': lambda net, x: net.unflatten(x),
    'divided': lambda net, x: x.reshape(len(x), x.shape[1] // 16, 4, 4),
    'numbers': lambda net, x: x.view(-1, 32, 4, 4),
}


class Generator(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.first = nn.Linear(20, 32 * 16)
        self.norm = nn.BatchNorm1d(32 * 16)
        self.unflatten = nn.Unflatten(1, (-1, 4, 4))
        self.up = nn.ConvTranspose2d(32, 16, 4, 2, 1)
        self.last = nn.ConvTranspose2d(16, 3, 4, 2, 1)
        self.way = WAYS[way]

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        return self.last(self.up(self.way(self, x)).relu()).tanh()


@pytest.mark.parametrize('way', WAYS)
def test_each_channel_of_the_map_is_its_positions_in_the_vector(way):
    torch.manual_seed(0)
    search = Search(Generator(way), torch.rand(4, 20), 0.5, total_steps=4)
    sizes = {unit.name: unit.num_channels for unit in search.mutator.units}
    if way == 'numbers':  # a narrower model would be asked for them, too
        assert sizes == {'up': 16}
        return
    assert sizes == {'first': 32, 'up': 16}
    for _ in range(4):
        search.model(torch.rand(4, 20)).square().mean().backward()
        search.step()
    subnet = search.export(divisor=1)
    assert subnet.difference < 1e-5
    model = subnet.model.train()
    assert model.first.out_features == 16 * model.up.in_channels < 512
    model(torch.rand(4, 20)).sum().backward()
    counted = sum(p.numel() for p in model.parameters())
    assert subnet.structure.resources['params']['subnet'] == counted
