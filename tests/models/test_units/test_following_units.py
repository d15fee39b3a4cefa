"""Units whose width is a portion of what another one keeps."""

import random

import pytest
import torch
from torch import nn

from dms_mmrazor.core import FlatTopk
from dms_mmrazor.errors import DMSError

EMBED, HIDDEN = 24, 96


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(EMBED)
        self.fc1 = nn.Linear(EMBED, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, EMBED)

    def forward(self, x):
        return x + self.fc2(torch.relu(self.fc1(self.norm(x))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(5, EMBED)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.head = nn.Linear(EMBED, 3)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))


def mutator_of(model, **units):
    from dms_mmrazor.models.mutators import DMSMutator

    mlp = dict(step=0.125, min_ratio=0.5, follows='stem')
    cfg = dict(
        type='DMSChannelUnit',
        units={
            'stem': dict(init_args=dict(step=4, min_ratio=0.5)),
            '*.fc1': dict(init_args={**mlp, **units}),
        },
    )
    mutator = DMSMutator(
        parse_cfg=dict(demo_input=(1, 5)),
        channel_unit_cfg=cfg,
        importance=dict(metric='index'),
    )
    mutator.prepare_from_supernet(model)
    return mutator


@pytest.fixture(scope='module')
def searched():
    torch.manual_seed(0)
    model = Net()
    return model, mutator_of(model)


def test_masks_keep_a_portion_of_what_the_leader_keeps():
    topk = FlatTopk([8, 32], min_kept=[4, 16], leaders={1: 0})
    for leader, own in ((8, 32), (6, 24), (4, 16), (5, 32)):
        topk.set_kept_(0, leader)
        topk.set_kept_(1, own)
        masks = topk.split(topk.hard_mask())
        assert [int(m.sum()) for m in masks] == [leader, leader * own // 8]
        assert topk.hard_kept().tolist() == [leader, own]
    topk.num_updates += 1
    topk.split(topk.soft_mask())[1].sum().backward()
    assert (topk.pruning_ratio.grad != 0).all()
    with pytest.raises(ValueError, match='follows another'):
        FlatTopk([8, 8, 8], leaders={1: 0, 2: 1})


def test_coupled_widths_export_as_they_were_masked(searched):
    from dms_mmrazor.graph import count_macs
    from dms_mmrazor.subnet import pruned_copy
    from dms_mmrazor.supernet.choice_space import ChoiceSpace
    from dms_mmrazor.supernet.difference import max_difference
    from dms_mmrazor.supernet.plain import plain_copy

    model, mutator = searched
    model.eval()
    space = ChoiceSpace(mutator)
    assert space.allowed[0] == (12, 16, 20, 24)
    assert space.allowed[1] == (48, 60, 72, 84, 96)
    x = torch.rand(4, 5)
    for seed in range(8):
        choices = space.sample(random.Random(seed))
        mutator.set_choices(choices)
        assert mutator.current_choices == choices
        plain = plain_copy(model)
        subnet = pruned_copy(plain, mutator.structure()).eval()
        embed = choices['stem']
        assert subnet.stem.out_features == embed
        for block in subnet.blocks:
            index = [n for n, m in plain.named_modules()]
            assert index
            assert block.fc1.in_features == embed
        kept = [b.fc1.out_features for b in subnet.blocks]
        names = [n for n in space.names if n.endswith('fc1')]
        possible = {int(choices[n] * embed / EMBED + 0.5) for n in names}
        assert set(kept) <= possible
        assert max_difference(model, subnet, x) < 1e-5
        predicted = mutator.resource_of('macs', choices)
        assert predicted == count_macs(subnet, (1, 5))
        assert mutator.resource('macs') == predicted


def test_a_search_moves_leader_and_followers_and_meets_its_target():
    from dms_mmrazor import Search

    torch.manual_seed(0)
    mlp = dict(step=12, min_ratio=0.5, follows='stem')
    units = {
        'stem': dict(init_args=dict(step=4, min_ratio=0.5)),
        '*.fc1': dict(init_args=mlp),
    }
    search = Search(
        Net(),
        torch.rand(4, 5),
        0.5,
        total_steps=30,
        mutator=dict(
            channel_unit_cfg=dict(type='DMSChannelUnit', units=units),
            importance=dict(metric='index'),
        ),
    )
    for _ in range(30):
        search.model(torch.rand(4, 5)).square().mean().backward()
        search.step()
    subnet = search.export(divisor=1)
    row = subnet.structure.resources['macs']
    assert 0.3 < row['ratio'] <= 0.5
    assert subnet.difference < 1e-5
    ratios = {u.name: len(u.kept) / u.size for u in subnet.structure.units}
    embed = ratios.pop('stem')
    for ratio in ratios.values():
        own = ratio / embed * HIDDEN / 12
        assert own == pytest.approx(round(own), abs=0.05)


def test_relative_names_and_wrong_ones():
    from dms_mmrazor.models.units import DMSChannelUnit

    unit = DMSChannelUnit(8, follows='...norm')
    unit.name = 'stage.0.se.conv1'
    assert unit.leader_name == 'stage.norm'
    for settings in (
        dict(follows='blocks.0'),
        dict(follows='blocks.0.fc1'),
        dict(mask_step=5),
    ):
        with pytest.raises(DMSError, match=next(iter(settings))):
            mutator_of(Net(), **settings)
