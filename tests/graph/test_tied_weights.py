import copy

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from dms_mmrazor.graph.channel_groups import ChannelGroup, Side
from dms_mmrazor.graph.tied_weights import (
    tie_groups,
    tied_parameters,
)
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.search.export import export_subnet
from dms_mmrazor.subnet import prune


class Tied(BaseModel):
    """Two layers share a weight, and no channel."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 1)
        self.one = nn.Conv2d(16, 16, 3, padding=1)
        self.middle = nn.Conv2d(16, 16, 1)
        self.two = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.two.weight = self.one.weight
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.middle(self.one(self.first(inputs)).relu()).relu()
        return self.last(self.two(x).relu())


def test_layers_that_share_a_weight_are_cut_alike(randomize_structure):
    mutator = dict(type='DMSMutator', parse_cfg=dict(demo_input=(1, 3, 8, 8)))
    search = DMSAlgorithm(Tied(), mutator=mutator)
    names = [unit.name for unit in search.mutator.units]
    assert names == ['first', 'one']  # middle's are first's, two's are one's
    choices = randomize_structure(search.mutator)
    subnet = export_subnet(search, divisor=1)
    model = subnet.model
    assert model.two.weight is model.one.weight
    assert model.one.weight.shape[:2] == (choices['one'], choices['first'])
    params = sum(p.numel() for p in model.parameters())
    assert search.mutator.resource_of('params', choices) == params
    assert subnet.difference <= 1e-5
    # The same where it is built from the structure file.
    again = prune(Tied(), subnet.structure)
    assert again.two.weight is again.one.weight
    again.load_state_dict(model.state_dict())


def group(name, outputs, inputs, size=8, reason=''):
    sides = [Side(layer, 0, size, True) for layer in outputs]
    sides += [Side(layer, 0, size, False) for layer in inputs]
    return ChannelGroup(name, size, tuple(sides), reason)


def test_what_cannot_be_cut_alike_is_held():
    model = nn.ModuleDict(
        dict(
            a=nn.Linear(8, 8),
            b=nn.Linear(8, 8),
            c=nn.Linear(8, 8),
            d=nn.Embedding(8, 8),
        )
    )
    groups = [
        group('a', ['a'], ['b']),
        group('b', ['b'], ['c'], reason='because'),
        group('c', ['c'], ['a']),
    ]
    assert tied_parameters(model) == []
    assert tie_groups(groups, model) == groups
    tied = copy.deepcopy(model)
    tied['b'].bias = tied['a'].bias
    reasons = {g.name: g.reason for g in tie_groups(groups, tied)}
    assert 'a and b share' in reasons['a'] and 'because' in reasons['a']
    assert reasons['b'] == 'because' and reasons['c'] == ''
    tied = copy.deepcopy(model)
    tied['d'].weight = tied['c'].weight  # nobody cuts an embedding
    reasons = {g.name: g.reason for g in tie_groups(groups, tied)}
    assert 'share' in reasons['c'] and reasons['a'] == ''


@pytest.mark.parametrize('tied', ['a b', 'a c'])
def test_groups_are_merged_once(tied):
    model = nn.ModuleDict({n: nn.Linear(8, 8) for n in 'abc'})
    one, two = tied.split()
    model[two].weight = model[one].weight
    model[two].bias = model[one].bias
    found = tie_groups(
        [
            group('a', ['a'], ['b']),
            group('b', ['b'], ['c']),
            group('c', ['c'], ['a']),
        ],
        model,
    )
    assert [g.reason for g in found] == [''] * len(found)
    touched = [side for g in found for side in g.layers]
    assert len(touched) == len(set(touched)) == 6
    assert len(found) == 1
    assert torch.is_tensor(model[one].weight)
