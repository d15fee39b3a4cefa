import copy
import random

import pytest
import torch
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import count_macs
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.subnet import prune

NETWORKS = {
    'grouped': lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, groups=8, padding=1),
        nn.Conv2d(8, 12, 3, padding=1, groups=4),
        nn.BatchNorm2d(12, affine=False),
        nn.Conv2d(12, 6, 1),
        nn.Conv2d(6, 5, 1),
    ),
    'flattened': lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 10),
        nn.ReLU(),
        nn.Linear(10, 5, bias=False),
    ),
}


def build(name):
    plain = NETWORKS[name]()
    model = NETWORKS[name]()
    mutator = DMSMutator(parse_cfg=dict(demo_input=(1, 3, 8, 8)))
    mutator.prepare_from_supernet(model)
    return mutator, plain


@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.parametrize('seed', range(3))
def test_counts_what_is_left(name, seed):
    mutator, plain = build(name)
    random.seed(seed)
    torch.manual_seed(seed)
    mutator.topk.importance.uniform_()
    for _ in range(3):
        mutator.set_choices(mutator.sample_choices())
        model = prune(NETWORKS[name](), mutator.structure())
        assert count_macs(model, (1, 3, 8, 8)) == mutator.resource('macs')
        params = sum(p.numel() for p in model.parameters())
        assert params == mutator.resource('params')


def test_soft_equals_hard_where_widths_are_whole(zoo):
    mutator = zoo.algorithm(zoo.cifar_resnet()).mutator
    mutator.topk.pruning_ratio.data[:16] = 0.25
    for kind in ('macs', 'params'):
        soft = mutator.table.soft(kind)
        assert soft.dtype == torch.float64 and soft.dim() == 0
        assert float(soft.detach()) == pytest.approx(mutator.resource(kind))
        assert mutator.resource(kind, hard=False) == float(soft.detach())


def test_gradient_reaches_widths_and_depths(zoo):
    mutator = zoo.algorithm(zoo.cifar_resnet()).mutator
    mutator.topk.num_updates.fill_(1)
    mutator.topk.pruning_ratio.data.fill_(0.3)
    mutator.table.soft('macs').backward()
    # The more is pruned the less it costs.
    assert (mutator.topk.pruning_ratio.grad < 0).all()


@pytest.mark.parametrize('divisor', [1, 8])
def test_range(zoo, divisor):
    mutator = zoo.algorithm(zoo.cifar_resnet()).mutator
    low, high = mutator.table.range('macs', divisor)
    assert high == mutator.table.full['macs']
    mutator.set_choices(
        {
            **{unit.name: divisor for unit in mutator.units},
            **{stage.name: 1 for stage in mutator.depth_units},
        }
    )
    assert low == pytest.approx(mutator.resource('macs'))
    lowest, _ = mutator.table.range('macs')
    assert lowest <= low


def test_range_respects_steps_and_limits(zoo):
    cfg = dict(
        type='DMSChannelUnit',
        default_args=dict(min_ratio=0.3, max_ratio=0.8, step=4),
    )
    mutator = zoo.algorithm(
        zoo.cifar_resnet(), mutator=dict(channel_unit_cfg=cfg)
    ).mutator
    low, high = mutator.table.range('params', 3)
    # Multiples of 4 and 3, or the most that is allowed.
    widths = {
        unit.name: min(-(-unit.min_kept // 12) * 12, unit.max_kept)
        for unit in mutator.units
    }
    depths = {stage.name: 1 for stage in mutator.depth_units}
    mutator.set_choices({**widths, **depths})
    assert low == pytest.approx(mutator.resource('params'))
    widths = {unit.name: unit.max_kept for unit in mutator.units}
    depths = {s.name: s.num_blocks for s in mutator.depth_units}
    mutator.set_choices({**widths, **depths})
    assert high == pytest.approx(mutator.resource('params'))
    assert high < mutator.table.full['params']


@pytest.mark.parametrize('hard', [True, False])
@pytest.mark.parametrize('kind', ['macs', 'params'])
def test_parts(zoo, randomize_structure, kind, hard):
    mutator = zoo.algorithm(zoo.cifar_resnet()).mutator
    randomize_structure(mutator)
    layers = mutator.table.parts(kind, hard=hard)
    stages = mutator.table.parts(kind, 'stage', hard)
    whole = mutator.resource(kind, hard)
    assert sum(layers.values()) == pytest.approx(whole)
    assert sum(stages.values()) == pytest.approx(whole)
    assert list(stages) == [
        'backbone',
        'backbone.layer1',
        'backbone.layer2',
        'backbone.layer3',
        'head',
    ]
    assert stages['backbone.layer2'] == pytest.approx(
        sum(v for k, v in layers.items() if k.startswith('backbone.layer2.'))
    )


def test_parts_of_removed_blocks_are_nothing(zoo):
    mutator = zoo.algorithm(zoo.cifar_resnet()).mutator
    whole = mutator.table.parts('macs')
    (stage, *_) = mutator.depth_units
    mutator.set_choices({stage.name: stage.num_blocks - 1})
    (gone,) = {
        name.rpartition('.')[0]
        for name, value in mutator.table.parts('macs').items()
        if value == 0
    }
    assert gone in stage.block_names
    assert all(whole.values())
    with pytest.raises(DMSError, match="`by` must be 'layer' or 'stage'"):
        mutator.table.parts('macs', 'block')


def test_unknown_kind(zoo):
    mutator = zoo.algorithm(zoo.cifar_resnet()).mutator
    with pytest.raises(DMSError, match="unknown resource 'latency'"):
        mutator.table.soft('latency')


def test_a_copy_counts_its_own_masks(zoo):
    mutator = zoo.algorithm(zoo.cifar_resnet()).mutator
    full = mutator.resource('macs')
    clone = copy.deepcopy(mutator)
    clone.topk.pruning_ratio.data.fill_(0.5)
    assert clone.resource('macs') < full == mutator.resource('macs')
