import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import count_macs, profile_layers
from dms_mmrazor.graph.demo import small_shape
from dms_mmrazor.graph.example_inputs import as_example
from dms_mmrazor.graph.layer_profile import run_first, uncounted_warning

OLD = tuple(map(int, torch.__version__.split('.')[:2])) < (2, 1)
SIZE = (2, 3, 8, 8)


def test_positions_of_each_layer():
    shared = nn.Conv2d(4, 4, 1)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        shared,
        shared,
        nn.ConvTranspose2d(4, 2, 2, stride=2),
        nn.Flatten(),
        nn.Linear(128, 5),
    )
    profiles = {
        p.name: p.positions for p in profile_layers(model, (2, 3, 8, 8))
    }
    assert profiles == {'0': 16, '1': 32, '3': 16, '5': 1}
    kernels = 16 * 4 * 27 + 32 * 16 + 16 * 4 * 2 * 4 + 128 * 5
    assert count_macs(model, (2, 3, 8, 8)) == kernels


def test_layers_that_do_not_run_cost_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    model.unused = nn.Conv2d(3, 4, 1)
    model.forward = lambda image: model[0](image)
    assert [p.name for p in profile_layers(model, (1, 3, 2, 2))] == ['0']


def test_state_is_not_changed():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model[1].eval()
    profile_layers(model, (1, 3, 4, 4))
    assert model.training and not model[1].training
    assert torch.equal(model[1].running_mean, torch.zeros(4))
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize('groups', [1, 2, 4])
def test_equals_the_counter_of_mmengine(groups):
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=groups, stride=2), nn.Conv2d(8, 8, 1)
    )
    info = get_model_complexity_info(model, input_shape=(4, 15, 15))
    assert count_macs(model, (1, 4, 15, 15)) == info['flops']


class OwnProduct(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(10, 4))
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return nn.functional.linear(self.inner(x), self.weight)


def model():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(2),
        nn.Linear(4, 4),
        OwnProduct(),
    )


@pytest.mark.skipif(OLD, reason='no counter of operators before torch 2.1')
def test_own_products_are_found():
    found = run_first(model(), SIZE).uncounted
    assert found == {'4': 4 * 10 * 4}  # positions x outputs x inputs
    counted = count_macs(model(), SIZE)
    assert counted == 64 * 3 * 4 * 9 + 2 * 4 * 4 * 4


def test_layers_are_not_found():
    assert run_first(model()[:4], SIZE).uncounted == {}


def test_warning_names_the_largest():
    found = {'a': 1.0, 'b': 3.0, 'c': 2.0, 'd': 2.0}
    text = uncounted_warning(found, 24.0)
    assert text.startswith('25.0% of the MACs are not counted: `b`, `c`, `d`')
    assert 'and 1 more' in text


def test_no_warning_below_a_percent():
    assert uncounted_warning({'dfl': 1.0}, 99.5) == ''
    assert uncounted_warning({}, 0.0) == ''


class Model(nn.Module):
    """A convolution and a product of its own; counts its calls."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.weight = nn.Parameter(torch.rand(5, 4))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        x = self.conv(x).mean((2, 3))
        return nn.functional.linear(x, self.weight)


def test_one_pass_tells_what_several_do():
    model, size = Model(), (1, 3, 8, 8)
    first = run_first(model, size)
    assert model.calls == 1
    assert first.layers == profile_layers(model, size)
    assert OLD or first.uncounted == {'': 5 * 4}
    assert not any(m._forward_hooks for m in model.modules())
    assert not any(m._forward_pre_hooks for m in model.modules())


class Bag(nn.Module):
    """One answer for all examples, and a table that does not grow."""

    def __init__(self):
        super().__init__()
        self.each = nn.Linear(6, 8)
        self.table = nn.Linear(2, 8)
        self.register_buffer('places', torch.rand(9, 2))
        self.all = nn.Linear(8, 3)

    def forward(self, x):
        table = self.table(self.places).mean(0)
        return self.all((self.each(x) + table).amax(0, keepdim=True))


@pytest.mark.parametrize('batch', [1, 4, 32])
def test_what_runs_once_counts_for_a_single_example(batch):
    example = as_example(torch.rand(batch, 6))
    assert count_macs(Bag(), example) == 6 * 8 + 9 * 2 * 8 + 8 * 3


class Pairs(nn.Module):
    """Compares the halves of a batch: it does not run on one example."""

    def __init__(self):
        super().__init__()
        self.each = nn.Linear(6, 8)
        self.pair = nn.Linear(8, 3)

    def forward(self, x):
        first, second = self.each(x).chunk(2)
        return self.pair(first - second)


def test_half_an_application_counts():
    example = as_example(torch.rand(2, 6))
    assert count_macs(Pairs(), example) == 6 * 8 + 8 * 3 / 2


def test_an_input_that_does_not_fit_is_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(DMSError, match='demo_input'):
        run_first(model, (1, 3, 8, 8))
    assert not any(m._forward_hooks for m in model.modules())


def test_a_small_input_where_the_model_takes_it():
    conv = nn.Conv2d(3, 4, 3)
    assert small_shape(conv, (2, 3, 600, 320)) == (2, 3, 128, 128)
    assert small_shape(conv, (1, 3, 600, 64)) == (1, 3, 128, 64)
    assert small_shape(conv, (1, 3, 32, 32)) == (1, 3, 32, 32)
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 160 * 160, 1))
    assert small_shape(fixed, (1, 3, 160, 160)) == (1, 3, 160, 160)
