"""Subnets of a shared supernet are what the supernet shows."""

import random

import pytest
import torch

from dms_mmrazor.subnet import pruned_copy
from dms_mmrazor.supernet.choice_space import ChoiceSpace
from dms_mmrazor.supernet.plain import plain_copy

CASES = [('ofa', False), ('autoformer', False), ('autoformer', True)]


@pytest.fixture(scope='module')
def searched(spaces):
    found = {}

    def build(name, fine=False):
        if (name, fine) not in found:
            torch.manual_seed(0)
            model, mutator = spaces.searched(name, fine)
            for norm in model.modules():
                if isinstance(norm, torch.nn.BatchNorm2d):
                    norm.running_mean.normal_(0, 0.1)
                    norm.running_var.uniform_(0.5, 1.5)
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.data.add_(0.1 * torch.rand_like(parameter))
            found[name, fine] = model.eval(), mutator
        return found[name, fine]

    return build


@pytest.mark.parametrize('name, fine', CASES)
def test_subnets_compute_what_the_supernet_computes(
    searched, spaces, name, fine
):
    from dms_mmrazor.graph import count_macs
    from dms_mmrazor.supernet.difference import max_difference

    model, mutator = searched(name, fine)
    space = ChoiceSpace(mutator)
    images = torch.rand(2, 3, spaces.size, spaces.size)
    for seed in range(6):
        choices = space.sample(random.Random(seed))
        space.show(choices)
        assert mutator.current_choices == choices
        subnet = pruned_copy(plain_copy(model), mutator.structure()).eval()
        assert max_difference(model, subnet, images) < 1e-5
        macs = count_macs(subnet, (1, 3, spaces.size, spaces.size))
        assert mutator.resource_of('macs', choices) == pytest.approx(macs)
        params = sum(p.numel() for p in subnet.parameters())
        assert mutator.resource('params') == pytest.approx(params)


def test_ofa_space(searched):
    model, mutator = searched('ofa')
    space = ChoiceSpace(mutator)
    numbers = dict(zip(space.names, space.allowed))
    middle = numbers.pop('backbone.stages.0.1.expand_conv.conv')
    assert middle == (48, 64, 80, 96)
    depths = [n for name, n in numbers.items() if name.count('.') == 2]
    assert depths == [(1, 2), (1, 2)]  # of three, the first always stays
    space.show({**space.smallest, **dict.fromkeys(space.names[-2:], 2)})
    subnet = pruned_copy(plain_copy(model), mutator.structure())
    block = subnet.backbone.stages[1][1]
    assert block.se.conv1.conv.out_channels == 40 // 2 // 8 * 8 + 8
    assert block.linear_conv.conv.in_channels == 24 * 6 // 2


def test_autoformer_space(searched):
    model, mutator = searched('autoformer')
    space = ChoiceSpace(mutator)
    numbers = dict(zip(space.names, space.allowed))
    assert numbers['backbone.patch_embed.projection'] == (32, 36, 40)
    assert numbers['backbone.layers.0.attn.heads'] == (3, 4)
    assert numbers['backbone.layers.0.ffn.layers.0.0'] == (140, 160)
    choices = space.largest
    choices['backbone.patch_embed.projection'] = 32
    choices['backbone.layers.0.ffn.layers.0.0'] = 140
    space.show(choices)
    subnet = pruned_copy(plain_copy(model), mutator.structure())
    first, second = subnet.backbone.layers[:2]
    assert first.ffn.layers[0][0].weight.shape == (3.5 * 32, 32)
    assert second.ffn.layers[0][0].weight.shape == (4 * 32, 32)
    # First channels, heads and layers: importance is the index.
    plain = plain_copy(model)
    assert torch.equal(
        first.ffn.layers[0][0].weight,
        plain.backbone.layers[0].ffn.layers[0][0].weight[:112, :32],
    )
    last = choices.copy()
    last[space.names[-1]] = 2
    space.show(last)
    structure = mutator.structure()
    (stage,) = structure.stages
    assert list(stage.kept) == ['backbone.layers.0', 'backbone.layers.1']


def test_sandwich(searched, spaces):
    from dms_mmrazor.errors import DMSError
    from dms_mmrazor.search.sandwich import Sandwich

    model, mutator = searched('ofa')
    sandwich = Sandwich(mutator, seed=1)
    assert list(sandwich.choices(3)) == list(sandwich.choices(3))
    assert list(sandwich.choices(3))[2:] != list(sandwich.choices(4))[2:]
    images = torch.rand(4, 3, spaces.size, spaces.size)
    labels = torch.arange(4)
    model.zero_grad()
    losses = []
    for loss in sandwich.losses(
        0,
        lambda: model(images),
        lambda logits: torch.nn.functional.cross_entropy(logits, labels),
    ):
        loss.backward()
        losses.append(float(loss))
    assert len(losses) == 4 and min(losses) >= 0
    assert losses[1] > 0  # the smallest differs from the largest
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(DMSError, match='samples'):
        Sandwich(mutator, ['max', 'all'])
