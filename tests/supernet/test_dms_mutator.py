import copy
import random

import pytest
import torch
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.layers import DMSOp, narrow_layer
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.registry import MODELS

STAGES = ['backbone.layer1', 'backbone.layer2', 'backbone.layer3']


@pytest.fixture
def search(zoo):
    """A search of a small network."""
    return zoo.algorithm(zoo.cifar_resnet())


@pytest.fixture
def mutator(search):
    return search.mutator


def test_resnet50_search_space(zoo):
    search = zoo.algorithm(zoo.resnet(50), 224)
    mutator = search.mutator
    assert len(mutator.units) == 37
    assert sum(unit.num_channels for unit in mutator.units) == 11456
    assert [stage.num_blocks for stage in mutator.depth_units] == [2, 3, 5, 2]
    (ratios,) = mutator.topk.learnable()
    assert ratios.shape == (41,)
    report = str(mutator.report())
    assert '37 width units with 11456 channels' in report
    assert '4 stages with 12 removable blocks, 41 structural' in report
    assert mutator.report().unsearched == []


def test_resnet50_resources(zoo, complexity):
    search = zoo.algorithm(zoo.resnet(50), 224)
    counted = complexity(zoo.plain(zoo.resnet(50)), 224)
    assert 4.09e9 <= round(counted['macs'], -7) <= 4.12e9
    for kind, value in counted.items():
        assert search.mutator.resource(kind) == pytest.approx(value, rel=1e-3)
        assert search.mutator.table.full[kind] == search.mutator.resource(kind)


def test_sampled_choices_can_be_set(mutator):
    random.seed(0)
    seen = set()
    for _ in range(5):
        choices = mutator.sample_choices()
        assert list(choices) == list(mutator.choice_template)
        mutator.set_choices(choices)
        assert mutator.current_choices == choices
        for group in mutator.search_groups.values():
            (unit,) = group
            assert unit.current_choice == choices[unit.name]
        seen.add(tuple(choices.values()))
    assert len(seen) == 5


def test_stock_interface(mutator):
    assert set(STAGES) <= set(mutator.choice_template)
    assert len(mutator.search_groups) == len(mutator.choice_template) == 19
    assert mutator.mutable_units == list(mutator.units)
    widths = {u.name: u.num_channels for u in mutator.mutable_units}
    full = {name: mutator.choice_template[name] for name in widths}
    assert full == widths
    # A float is a ratio, as in mmrazor.
    mutator.set_choices({'backbone.layer3.0.conv1': 0.25})
    assert mutator.current_choices['backbone.layer3.0.conv1'] == 16


@pytest.mark.parametrize(
    'choices, words',
    [
        ({'backbone.layer1.0.conv': 4}, ['backbone.layer1.0.conv1']),
        ({'backbone.conv1': 17}, ['backbone.conv1', '17']),
        ({'backbone.conv1': 0}, ['backbone.conv1', '0']),
        ({'backbone.layer2': 0}, ['backbone.layer2', '0']),
        ({'backbone.layer2': 4}, ['backbone.layer2', '4']),
    ],
)
def test_bad_choices(mutator, choices, words):
    with pytest.raises(DMSError) as error:
        mutator.set_choices(choices)
    assert all(word in str(error.value) for word in words)
    assert '\n' not in str(error.value)


def test_the_most_important_are_kept(mutator):
    mutator.topk.importance.copy_(torch.rand(len(mutator.topk.importance)))
    mutator.set_choices({'backbone.conv1': 5, 'backbone.layer3': 2})
    widths, *_ = mutator.topk.split(mutator.topk.importance)
    best = widths.topk(5).indices.sort().values.tolist()
    structure = mutator.structure()
    assert list(structure.units[0].kept) == best
    depths = mutator.topk.split(mutator.topk.importance)[-1]
    blocks = depths.topk(2).indices.sort().values.tolist()
    names = [structure.stages[-1].blocks[index] for index in blocks]
    assert list(structure.stages[-1].kept) == names


def test_other_choices_leave_the_search_as_it_is(mutator):
    before = mutator.current_choices
    structure = mutator.structure({'backbone.conv1': 3})
    assert len(structure.units[0].kept) == 3
    assert mutator.current_choices == before


def test_configs_of_mmrazor_are_accepted(zoo):
    parse_cfg = dict(
        type='ChannelAnalyzer',
        demo_input=(1, 3, 32, 32),
        tracer_type='FxTracer',
    )
    stock = zoo.algorithm(
        zoo.cifar_resnet(), mutator=dict(parse_cfg=parse_cfg)
    )
    ours = zoo.algorithm(zoo.cifar_resnet())
    assert stock.mutator.choice_template == ours.mutator.choice_template
    assert stock.mutator.table.full == ours.mutator.table.full
    # A demo input in mmrazor's own words.
    parse_cfg['demo_input'] = dict(
        type='DefaultDemoInput', input_shape=(1, 3, 16, 16)
    )
    small = zoo.algorithm(
        zoo.cifar_resnet(), mutator=dict(parse_cfg=parse_cfg)
    )
    assert small.mutator.resource('macs') < ours.mutator.resource('macs')
    with pytest.raises(DMSError, match='parse_cfg.type.*Predefined'):
        DMSMutator(parse_cfg=dict(type='Predefined'))


def test_static_ops_equal_the_masked_supernet(zoo, randomize_structure):
    """Replace every layer by ``to_static_op``, as mmrazor exports."""
    search = zoo.algorithm(
        zoo.cifar_resnet(), mutator=dict(depth_unit_cfg=None)
    ).eval()
    randomize_structure(search.mutator, seed=3)
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = search(image)
        static = copy.deepcopy(search)
        kept = {
            layer.layer: unit.kept
            for unit in search.mutator.structure().units
            for layer in unit.outputs
        }
        for parent in list(static.architecture.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, DMSOp):
                    setattr(parent, name, child.to_static_op())
        # Stock `_dynamic_to_static` narrows norms through their containers;
        # here norms have none, so the structure says what they keep.
        for name, module in static.architecture.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                narrow_layer(module, torch.tensor(kept[name]), None)
        actual = static.architecture(image)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_widths_alone(zoo):
    search = zoo.algorithm(
        zoo.cifar_resnet(), mutator=dict(depth_unit_cfg=None)
    )
    mutator = search.mutator
    assert len(mutator.units) == 16 and not len(mutator.depth_units)
    mutator.set_choices(mutator.sample_choices())
    assert mutator.structure().removed_blocks == []


def test_depths_alone(zoo, batch):
    search = zoo.algorithm(
        zoo.cifar_resnet(), mutator=dict(channel_unit_cfg=None)
    )
    mutator = search.mutator
    assert list(mutator.choice_template) == STAGES and not len(mutator.units)
    mutator.set_choices({'backbone.layer3': 1})
    assert len(mutator.structure().removed_blocks) == 4
    reports = mutator.report().layers
    assert all('channel_unit_cfg=None' in r.outputs for r in reports[:-1])
    search.train()
    losses = search(**batch(), mode='loss')
    losses['loss'].backward()
    assert mutator.masks.mask_grad.abs().sum() > 0


def test_excluded_units_have_a_reason(zoo):
    search = zoo.algorithm(
        zoo.cifar_resnet(),
        mutator=dict(
            exclude=['backbone.layer1.*.conv1', 'backbone.layer2', 'head.fc']
        ),
    )
    mutator = search.mutator
    names = list(mutator.choice_template)
    assert not any('layer1.0.conv1' in name for name in names)
    assert 'backbone.layer2' not in names
    assert 'backbone.layer2.0.conv1' in names
    # The unit that ends in the excluded head is that of the last stage.
    assert 'backbone.layer3.0.conv2' not in names
    layers = {layer.name: layer for layer in mutator.report().layers}
    reason = 'excluded by `mutator.exclude`'
    assert layers['backbone.layer1.1.conv1'].outputs == reason
    assert layers['backbone.layer1.1.conv2'].inputs == reason
    assert layers['head.fc'].inputs == reason
    assert not layers['head.fc'].searched
    assert mutator.report().stage_reasons == {'backbone.layer2': reason}
    assert reason in str(mutator.report())


@pytest.mark.parametrize('step', [8, 16])
def test_coarse_steps(zoo, step):
    search = zoo.algorithm(
        zoo.cifar_resnet(),
        mutator=dict(
            channel_unit_cfg=dict(
                type='DMSChannelUnit', default_args=dict(step=step)
            )
        ),
    )
    mutator = search.mutator
    random.seed(0)
    for _ in range(3):
        mutator.set_choices(mutator.sample_choices())
        for unit in mutator.structure().units:
            assert len(unit.kept) % step == 0
            assert all(
                unit.kept[i] == unit.kept[i - 1] + 1
                for i in range(len(unit.kept))
                if i % step
            )
    assert mutator.divisors(12) == [step * 12 // 4] * 16


def test_limits_of_units_from_the_config(zoo):
    cfg = dict(
        type='DMSChannelUnit',
        default_args=dict(min_ratio=0.5),
        units={
            'backbone.conv1': dict(init_args=dict(min_ratio=1.0)),
            'backbone.layer3*': dict(init_args=dict(max_ratio=0.75)),
        },
    )
    search = zoo.algorithm(
        zoo.cifar_resnet(), mutator=dict(channel_unit_cfg=cfg)
    )
    mutator = search.mutator
    assert mutator.current_choices['backbone.conv1'] == 16
    assert mutator.current_choices['backbone.layer2.0.conv1'] == 32
    assert mutator.current_choices['backbone.layer3.0.conv1'] == 48
    mutator.topk.pruning_ratio.data.fill_(1.0)
    mutator.topk.project_()
    assert mutator.current_choices['backbone.conv1'] == 16
    assert mutator.current_choices['backbone.layer2.0.conv1'] == 16
    assert mutator.current_choices['backbone.layer3.0.conv1'] == 32


@pytest.mark.parametrize(
    'kwargs, words',
    [
        (
            dict(exclude=['backbone.layer5']),
            ['mutator.exclude', "'backbone.layer5'", 'backbone.layer'],
        ),
        (
            dict(
                channel_unit_cfg=dict(
                    type='DMSChannelUnit', units={'backbone.conv2': {}}
                )
            ),
            ['channel_unit_cfg.units', 'backbone.conv1'],
        ),
        (
            dict(
                depth_unit_cfg=dict(type='DMSDepthUnit', units={'layer1': {}})
            ),
            ['depth_unit_cfg.units', 'backbone.layer1'],
        ),
        (
            dict(channel_unit_cfg=dict(type='DMSChannelUnit', default=1)),
            ['channel_unit_cfg', 'default', 'default_args'],
        ),
        (
            dict(depth_unit_cfg=dict(type='DMSDepthUnit', min_blocks=1)),
            ['depth_unit_cfg', 'min_blocks', 'default_args'],
        ),
        (
            dict(channel_unit_cfg=None, depth_unit_cfg=None),
            ['no searchable unit', 'channel_unit_cfg=None'],
        ),
        (
            dict(exclude=['*']),
            ['no searchable unit', 'mutator.exclude'],
        ),
        (dict(importance=dict(metric='magic')), ['importance', 'magic']),
        (dict(importance=dict(decay=1.0)), ['importance', 'decay=1.0']),
        (dict(importance=dict(decay=-0.1)), ['importance', 'decay=-0.1']),
    ],
)
def test_bad_configs(zoo, kwargs, words):
    with pytest.raises(DMSError) as error:
        zoo.algorithm(zoo.cifar_resnet(18), mutator=kwargs)
    assert all(word in str(error.value) for word in words), error.value
    assert '\n' not in str(error.value)


def test_a_model_without_searchable_units():
    mutator = DMSMutator(parse_cfg=dict(demo_input=(1, 3, 8, 8)))
    with pytest.raises(DMSError, match="no searchable.*the model's output"):
        mutator.prepare_from_supernet(nn.Sequential(nn.Conv2d(3, 4, 1)))


def test_an_unprepared_mutator_says_so():
    mutator = DMSMutator()
    for use in (
        mutator.sample_choices,
        lambda: mutator.resource('macs'),
        mutator.structure,
        lambda: mutator.topk,
    ):
        with pytest.raises(DMSError, match='prepare_from_supernet'):
            use()


def test_unknown_resource(mutator):
    with pytest.raises(DMSError, match="unknown resource 'flops'.*macs"):
        mutator.resource('flops')


def test_built_by_name_from_the_registry():
    mutator = MODELS.build(dict(type='DMSMutator', exclude=['a']))
    assert type(mutator) is DMSMutator


@pytest.mark.parametrize('metric', ['taylor', 'l1'])
def test_a_copy_leaves_the_network_where_it_is(zoo, metric):
    mutator = dict(importance=dict(metric=metric))
    search = zoo.algorithm(zoo.cifar_resnet(), mutator=mutator)
    memo = {}
    copy.deepcopy(search.mutator, memo)
    weights = list(search.architecture.parameters())
    assert not any(id(weight) in memo for weight in weights)


def test_a_copy_of_all_refers_to_its_own_layers(zoo):
    search = zoo.algorithm(zoo.cifar_resnet())
    twin = copy.deepcopy(search)
    own, copied = (set(s.architecture.modules()) for s in (search, twin))
    pairs = zip(search.mutator.units, twin.mutator.units)
    for unit, other in pairs:
        for layer, its_copy in zip(unit.layers, other.layers):
            assert (layer in own) == (its_copy in copied)


def test_preparation_leaves_the_random_numbers_alone(zoo):
    """A training of that seed goes on as it would without a search."""
    plain = zoo.plain(zoo.cifar_resnet(18))
    mutator = DMSMutator(parse_cfg=dict(demo_input=(1, 3, 32, 32)))
    python, numbers = random.getstate(), torch.get_rng_state()
    mutator.prepare_from_supernet(plain)
    assert random.getstate() == python
    assert torch.equal(torch.get_rng_state(), numbers)
