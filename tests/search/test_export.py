import os

import pytest
import torch

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.running import live_tensors
from dms_mmrazor.layers import DMSOp
from dms_mmrazor.search.export import (
    export_subnet,
    save_subnet,
    uniform_structure,
)
from dms_mmrazor.search.fitted_structure import fit_choices
from dms_mmrazor.subnet import load_structure
from dms_mmrazor.supernet.difference import max_difference
from dms_mmrazor.supernet.plain import plain_copy

NETWORKS = [
    ('resnet18', 64, range(3)),
    ('resnet50', 64, range(3)),
    ('resnet50', 224, range(1)),
    ('cifar_resnet', 32, range(4)),
]
CASES = [(name, size, seed) for name, size, ss in NETWORKS for seed in ss]


@pytest.fixture
def build(zoo):
    def build(name, size=32):
        cfg = {
            'resnet18': lambda: zoo.resnet(18),
            'resnet50': lambda: zoo.resnet(50),
            'cifar_resnet': zoo.cifar_resnet,
        }[name]()
        search = zoo.algorithm(cfg, size)
        search.init_weights()
        return search

    return build


@pytest.mark.parametrize('name, size, seed', CASES)
def test_equals_the_masked_supernet(
    build, randomize_structure, randomize_model, complexity, name, size, seed
):
    """Random structures, with and without random norms."""
    search = build(name, size).eval()
    if seed:
        randomize_model(search.architecture, seed)
    choices = randomize_structure(search.mutator, seed)
    subnet = export_subnet(search, divisor=1)
    # Without a target the structure is what is found, not rounded.
    assert search.mutator.current_choices == choices
    image = torch.rand(2, 3, size, size)
    with torch.no_grad():
        expected, actual = search(image), subnet.model(image)
    scale = expected.abs().max()
    assert (actual - expected).abs().max() <= 1e-5 * scale
    assert subnet.difference <= 1e-5
    kept = {u.name: len(u.kept) for u in subnet.structure.units}
    kept.update({s.name: len(s.kept) for s in subnet.structure.stages})
    assert kept == choices
    for kind, value in complexity(subnet.model, size).items():
        assert search.mutator.resource(kind) == pytest.approx(value, rel=1e-3)
        assert subnet.structure.resources[kind]['subnet'] == value


def test_the_search_goes_on_unchanged(build, randomize_structure, batch):
    search = build('cifar_resnet')
    randomize_structure(search.mutator)
    search.mutator.masks.use_soft_masks()
    before = {k: v.clone() for k, v in search.state_dict().items()}
    target = 0.3 * search.mutator.table.full['macs']
    subnet = export_subnet(search, dict(macs=target))
    for name, value in search.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert search.training
    assert search.mutator.masks.table.masks[0].requires_grad
    with torch.no_grad():
        for parameter in subnet.model.parameters():
            parameter.zero_()
    for name, value in search.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_everything_kept_is_the_plain_model(build, batch):
    search = build('cifar_resnet').eval()
    subnet = export_subnet(search)
    assert not any(isinstance(m, DMSOp) for m in subnet.model.modules())
    image = batch()['inputs']
    with torch.no_grad():
        assert torch.equal(
            subnet.model.eval()(image), plain_copy(search.architecture)(image)
        )
    assert subnet.structure.resources['macs']['ratio'] == 1


@pytest.mark.parametrize('divisor', [1, 4, 8])
@pytest.mark.parametrize('portion', [0.2, 0.6])
def test_targets_are_met(build, randomize_structure, divisor, portion):
    search = build('cifar_resnet')
    mutator = search.mutator
    randomize_structure(mutator, seed=2)
    target = portion * mutator.table.full['macs']
    subnet = export_subnet(search, dict(macs=target), divisor)
    row = subnet.structure.resources['macs']
    assert row['subnet'] <= target and row['target'] == round(target)
    assert row['subnet'] >= (0.995 if divisor == 1 else 0.99) * target
    for unit in subnet.structure.units:
        assert len(unit.kept) in (unit.size, *range(0, unit.size, divisor))
    # Depths are those of the search.
    depths = [stage.current_choice for stage in mutator.depth_units]
    kept = [len(stage.kept) for stage in subnet.structure.stages]
    assert kept == depths
    assert subnet.structure.search['divisor'] == divisor


@pytest.mark.parametrize('divisor', [1, 8])
def test_without_a_target_widths_are_rounded(
    build, randomize_structure, divisor
):
    mutator = build('cifar_resnet').mutator
    choices = randomize_structure(mutator, seed=4)
    found = fit_choices(mutator, {}, divisor)
    for unit in mutator.units:
        assert found[unit.name] % divisor == 0
        near = max(divisor, found[unit.name])
        assert abs(near - choices[unit.name]) <= max(divisor / 2, divisor - 1)
    for stage in mutator.depth_units:
        assert found[stage.name] == choices[stage.name]


@pytest.mark.parametrize('portion', [0.5, 1.0])
def test_a_search_of_depths_alone(zoo, portion):
    search = zoo.algorithm(
        zoo.cifar_resnet(), mutator=dict(channel_unit_cfg=None)
    )
    target = portion * search.mutator.table.full['macs']
    subnet = export_subnet(search, dict(macs=target))
    assert subnet.structure.units == ()
    assert bool(subnet.structure.removed_blocks) is (portion < 1)
    assert subnet.structure.resources['macs']['subnet'] <= target
    assert subnet.difference <= 1e-5


def test_two_targets(build):
    search = build('cifar_resnet')
    full = search.mutator.table.full
    targets = dict(macs=full['macs'] * 0.5, params=full['params'] * 0.2)
    subnet = export_subnet(search, targets, divisor=1)
    used = [
        subnet.structure.resources[kind]['subnet'] / target
        for kind, target in targets.items()
    ]
    assert 0.98 <= max(used) <= 1


def test_blocks_go_if_the_narrowest_widths_do_not_suffice(build):
    search = build('cifar_resnet')
    mutator = search.mutator
    low, _ = mutator.table.range('macs', 8)
    choices = fit_choices(mutator, dict(macs=1.2 * low), 8)
    depths = [choices[stage.name] for stage in mutator.depth_units]
    assert depths < [3, 3, 5]
    mutator.set_choices(choices)
    assert mutator.resource('macs') <= 1.2 * low


def test_unreachable_targets(build):
    search = build('cifar_resnet')
    low, _ = search.mutator.table.range('macs', 8)
    with pytest.raises(DMSError, match="'macs'.*cannot be reached"):
        export_subnet(search, dict(macs=0.9 * low))


def test_files(build, randomize_structure, tmp_path):
    search = build('cifar_resnet')
    randomize_structure(search.mutator, seed=1)
    subnet = export_subnet(search, search=dict(seed=3))
    folder = str(tmp_path / 'a' / 'b')
    paths = save_subnet(subnet, folder)
    assert sorted(os.listdir(folder)) == ['subnet.pth', 'subnet.yaml']
    structure = load_structure(paths['structure'])
    assert structure == subnet.structure
    assert structure.search == dict(seed=3, divisor=8)
    state = torch.load(paths['weights'])['state_dict']
    assert list(state) == list(subnet.model.state_dict())
    # Overwriting leaves nothing behind.
    save_subnet(subnet, folder)
    assert sorted(os.listdir(folder)) == ['subnet.pth', 'subnet.yaml']


def test_a_wrong_subnet_would_be_noticed(build, randomize_structure):
    search = build('cifar_resnet').eval()
    randomize_structure(search.mutator)
    subnet = export_subnet(search, divisor=1)
    with torch.no_grad():
        subnet.model.backbone.conv1.weight *= 1.01
    image = torch.rand(1, 3, 32, 32)
    assert max_difference(search.architecture, subnet.model, image) > 1e-4


def test_a_count_that_was_not_predicted_is_an_error(build):
    search = build('cifar_resnet')
    extra = torch.nn.Parameter(torch.zeros(10**4))
    search.architecture.head.fc.register_parameter('extra', extra)
    params = sum(p.numel() for p in search.architecture.parameters())
    with pytest.raises(DMSError, match='`params`') as error:
        export_subnet(search)
    assert f'{params:.6g}' in str(error.value)
    assert f'{params - 10**4:.6g}' in str(error.value)


def test_nothing_is_copied_that_is_not_kept(build, randomize_structure):
    """The supernet's tensors stay where they are, and the subnet's are new."""
    search = build('cifar_resnet')
    randomize_structure(search.mutator)
    before = live_tensors(search.architecture)
    places = {name: t.data_ptr() for name, t in before.items()}
    subnet = export_subnet(search)
    after = live_tensors(search.architecture)
    assert {name: t.data_ptr() for name, t in after.items()} == places
    own = {t.data_ptr() for t in live_tensors(subnet.model).values()}
    assert not own & set(places.values())
    shared = plain_copy(search.architecture, share=True)
    values = live_tensors(shared).values()
    assert {t.data_ptr() for t in values} == set(places.values())


def test_a_uniform_structure_leaves_the_search_alone(
    build, randomize_structure
):
    search = build('cifar_resnet')
    randomize_structure(search.mutator)
    before = {k: v.clone() for k, v in search.state_dict().items()}
    target = 0.4 * search.mutator.table.full['macs']
    structure = uniform_structure(search.mutator, dict(macs=target))
    assert structure.resources['macs']['subnet'] <= target
    for unit in structure.units:  # the first channels, all blocks
        assert unit.kept == tuple(range(len(unit.kept)))
    assert not structure.removed_blocks
    for name, value in search.state_dict().items():
        assert torch.equal(value, before[name]), name
