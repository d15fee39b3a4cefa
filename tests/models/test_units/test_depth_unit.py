import copy
import random

import pytest
import torch
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import ResidualBlock, ResidualStage
from dms_mmrazor.layers import DMSBatchNorm2d
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.models.units import DepthScaling, DMSDepthUnit


class Block(nn.Module):
    """x + f(x); ``scale`` ends f in something that is not affine."""

    def __init__(self, channels, scale=False):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.end = nn.Hardtanh() if scale else nn.Identity()

    def forward(self, x):
        return x + self.end(self.norm(self.conv(x)))


def network(scale):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.Sequential(*(Block(4, scale) for _ in range(3))),
        nn.Conv2d(4, 5, 1),
    ).eval()


def searched(model, **kwargs):
    mutator = DMSMutator(parse_cfg=dict(demo_input=(1, 3, 8, 8)), **kwargs)
    mutator.prepare_from_supernet(model)
    return mutator


def stage(removable, fixed=0):
    blocks = [ResidualBlock(f's.{i}', f's.{i}.n', True) for i in range(3)]
    return ResidualStage('s', tuple(blocks[:removable]), fixed)


@pytest.mark.parametrize(
    'kwargs, low, high',
    [({}, 1, 3), (dict(min_blocks=2), 2, 3), (dict(max_blocks=2), 1, 2)],
)
def test_limits(kwargs, low, high):
    unit = DMSDepthUnit(stage(3), **kwargs)
    random.seed(0)
    samples = {unit.sample_choice() for _ in range(50)}
    assert samples == set(range(low, high + 1))
    assert unit.name == 's' and unit.current_choice == 3


def test_a_stage_with_a_fixed_block_may_lose_all_others():
    assert DMSDepthUnit(stage(2, fixed=1), min_blocks=0).min_blocks == 0
    with pytest.raises(DMSError, match='without any block'):
        DMSDepthUnit(stage(2), min_blocks=0)


@pytest.mark.parametrize(
    'kwargs', [dict(min_blocks=4), dict(max_blocks=4), dict(min_blocks=-1)]
)
def test_bad_limits(kwargs):
    with pytest.raises(DMSError, match='stage s has 3 removable blocks'):
        DMSDepthUnit(stage(3), **kwargs)


@pytest.mark.parametrize('scale', [False, True])
def test_a_masked_block_is_x_plus_m_f(scale):
    plain = network(scale)
    model = copy.deepcopy(plain)
    mutator = searched(model)
    (unit,) = mutator.depth_units
    assert unit.block_names == ('1.0', '1.1', '1.2')
    carries = DepthScaling if scale else DMSBatchNorm2d
    assert all(block.folds is not scale for block in unit.stage.blocks)
    assert any(
        isinstance(part, carries)
        for module in model.modules()
        for part in (module, *module._forward_hooks.values())
    )
    mask = torch.ones_like(mutator.masks.mask)
    mask[-3:] = torch.tensor([0.25, 1.0, 0.0])
    image = torch.rand(2, 3, 8, 8)
    x = plain[0](image)
    for block, m in zip(plain[1], (0.25, 1.0, 0.0)):
        x = x + m * (block(x) - x)
    with mutator.masks.showing(mask):
        torch.testing.assert_close(model(image), plain[2](x))
    assert torch.equal(model(image), plain(image))


@pytest.mark.parametrize('scale', [False, True])
def test_a_copy_has_masks_of_its_own(scale):
    holder = nn.Module()
    holder.model = network(scale)
    holder.mutator = searched(holder.model)
    clone = copy.deepcopy(holder)
    image = torch.rand(2, 3, 8, 8)
    before = holder.model(image)
    clone.mutator.set_choices({'1': 1})
    assert torch.equal(holder.model(image), before)
    assert not torch.equal(clone.model(image), before)
    with torch.no_grad():
        clone.model[1][1].norm.bias.fill_(9.0)
    expected = clone.model(image)
    clone.mutator.set_choices({'1': 3})
    assert not torch.equal(clone.model(image), expected)


def test_min_blocks_from_the_config():
    cfg = dict(type='DMSDepthUnit', default_args=dict(min_blocks=2))
    mutator = searched(network(False), depth_unit_cfg=cfg)
    mutator.topk.pruning_ratio.data.fill_(1.0)
    mutator.topk.project_()
    assert mutator.current_choices['1'] == 2
    with pytest.raises(DMSError, match='1: operator'):
        mutator.set_choices({'1': 1})


def test_a_stage_that_must_keep_all_blocks_is_not_searched():
    cfg = dict(type='DMSDepthUnit', default_args=dict(min_blocks=3))
    mutator = searched(network(False), depth_unit_cfg=cfg)
    assert not len(mutator.depth_units)
    assert 'min_blocks=3' in mutator.report().stage_reasons['1']
