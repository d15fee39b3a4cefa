import pytest
import torch

from dms_mmrazor.core import LatencyFit
from dms_mmrazor.latency.measure import timed_layers
from dms_mmrazor.layers import channels_of
from dms_mmrazor.subnet import prune
from dms_mmrazor.supernet.latency_terms import is_depthwise
from dms_mmrazor.supernet.plain import plain_copy


@pytest.fixture(params=['resnet', 'mobilenet', 'vit'])
def search(request, zoo):
    architecture = {
        'resnet': zoo.cifar_resnet(),
        'mobilenet': zoo.classifier(dict(type='mmpretrain.MobileNetV2'), 1280),
        'vit': zoo.vit(32, 3, 4, patch_size=8),
    }[request.param]
    return zoo.algorithm(architecture, 32)


def random_fits(mutator, seed=0):
    """A latency of its own for every layer."""
    generator = torch.Generator().manual_seed(seed)
    fits = {}
    for layer in mutator.layer_widths:
        parts = torch.rand(5, generator=generator, dtype=torch.float64)
        shares = tuple((parts[:4] / parts[:4].sum()).tolist())
        fits[layer.name] = LatencyFit(float(parts[4]), shares, 0.0, 0.0)
    return fits


def expected_latency(model, plain, fits, original):
    """Eq. 9 of the layers that a subnet has, from its own widths.

    Args:
        original (dict): Names of the supernet's layers by the subnet's.
    """
    total = 0.0
    before = timed_layers(plain)
    for name, layer in timed_layers(model).items():
        full = before[original[name]]
        x, y = (
            channels_of(layer, side) / channels_of(full, side)
            for side in (True, False)
        )
        x = 1.0 if is_depthwise(full) else x
        fit = fits[original[name]]
        total += fit.full * fit.ratio(x, y)
    return total


def names_before(plain, structure):
    """A subnet's layers in order → those of the supernet that are left."""
    gone = tuple(f'{name}.' for name in structure.removed_blocks)
    return [n for n in timed_layers(plain) if not n.startswith(gone or '\0')]


@pytest.mark.parametrize('seed', range(3))
def test_is_the_sum_over_what_is_left(search, randomize_structure, seed):
    mutator = search.mutator
    fits = random_fits(mutator)
    mutator.set_latency(fits)
    plain = plain_copy(search.architecture)
    choices = randomize_structure(mutator, seed)
    structure = mutator.structure()
    model = prune(plain_copy(search.architecture), structure)
    original = dict(zip(timed_layers(model), names_before(plain, structure)))
    expected = expected_latency(model, plain, fits, original)
    assert mutator.resource('latency') == pytest.approx(expected)
    assert mutator.resource_of('latency', choices) == pytest.approx(expected)


def test_the_supernet_is_the_sum_of_its_layers(search):
    mutator = search.mutator
    fits = random_fits(mutator)
    mutator.set_latency(fits)
    total = sum(fit.full for fit in fits.values())
    assert mutator.table.full['latency'] == pytest.approx(total)
    assert mutator.resource('latency', hard=False) == pytest.approx(total)
    low, high = mutator.table.range('latency')
    assert 0 < low < high == mutator.table.full['latency']


def test_gradient_in_all_pruning_ratios(search):
    mutator = search.mutator
    mutator.set_latency(random_fits(mutator))
    model = mutator.table.model('latency')
    torch.manual_seed(0)
    sizes = torch.tensor([unit.num_channels for unit in mutator.units])
    kept = (sizes * (0.2 + 0.6 * torch.rand(len(sizes)))).double()
    blocks = torch.rand(model.num_blocks, dtype=torch.float64)
    inputs = (kept.requires_grad_(), blocks.requires_grad_())
    assert torch.autograd.gradcheck(model, inputs)
    gradients = torch.autograd.grad(model(*inputs), inputs)
    assert all((grad > 0).all() for grad in gradients)


def test_a_new_table_replaces_the_old_one(search):
    mutator = search.mutator
    mutator.set_latency(random_fits(mutator))
    before = mutator.table.full['latency']
    doubled = {
        name: fit._replace(full=2 * fit.full)
        for name, fit in random_fits(mutator).items()
    }
    mutator.set_latency(doubled)
    assert mutator.table.full['latency'] == pytest.approx(2 * before)
    assert list(mutator.table.full) == ['macs', 'params', 'latency']


def test_no_cost_of_a_layer_is_forgotten(search):
    """Also where a side is not searched, or only by some units."""
    mutator = search.mutator
    for layer in mutator.layer_widths:
        sizes = [unit.num_channels for unit in mutator.units]
        for channels, products in zip(
            layer.channels, (layer.inputs, layer.outputs)
        ):
            total = 0.0
            for factor, dims in products:
                for dim in dims:
                    factor *= dim.constant + sum(
                        sizes[unit] * multiple for unit, multiple in dim.units
                    )
                total += factor
            assert total == pytest.approx(channels), layer.name
