import copy
import random

import pytest
import torch
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.models.mutators.verify import (
    Comparison,
    flatten_tensors,
    max_difference,
)
from dms_mmrazor.models.subnet import Structure


class Reading(nn.Module):
    """A model that looks at its channels where no tracer sees it."""

    def __init__(self, look):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.look = look
        self.second = nn.Conv2d(8, 5, 1)

    def forward(self, image):
        return self.second(self.look(self.first(image)))


class Roll(nn.Module):
    """Channels in another order: masks and cuts do not match."""

    def forward(self, image):
        return torch.roll(image, 1, 1)


class Weigh(nn.Module):
    """Its number of channels is fixed, and it has no weight to cut."""

    def forward(self, image):
        return image * torch.arange(1.0, 9.0).view(8, 1, 1)


def prepare(model, **kwargs):
    mutator = DMSMutator(parse_cfg=dict(demo_input=(1, 3, 4, 4)), **kwargs)
    mutator.prepare_from_supernet(model)
    return mutator


@pytest.mark.parametrize(
    'look, words',
    [
        (Roll(), 'computes something else than the masked supernet'),
        (Weigh(), 'a random subnet does not run'),
    ],
)
def test_a_misunderstood_model_is_found_before_the_search(look, words):
    random.seed(0)
    torch.manual_seed(0)
    model = Reading(look)
    with pytest.raises(DMSError, match=words) as error:
        prepare(copy.deepcopy(model))
    assert 'mutator.exclude' in str(error.value)
    assert prepare(copy.deepcopy(model), verify=False).units
    with pytest.raises(DMSError, match='no searchable unit'):
        prepare(model, exclude=['first'])


def test_the_module_and_what_to_exclude_are_named():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1), Reading(Roll())
    )
    with pytest.raises(DMSError, match='first seen in `2.second`') as error:
        prepare(copy.deepcopy(model))
    assert "mutator.exclude=['2.first']" in str(error.value)
    mutator = prepare(model, exclude=['2.first'])
    assert [unit.name for unit in mutator.units] == ['0']


def test_an_input_that_does_not_fit_is_named():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(8 * 9, 5)
    )
    with pytest.raises(DMSError, match='demo_input') as error:
        prepare(model)
    assert '(1, 3, 4, 4)' in str(error.value)
    assert '`2` (Linear)' in str(error.value)


def test_values_that_are_no_numbers_differ():
    one = nn.Conv2d(3, 4, 1)
    two = copy.deepcopy(one)
    with torch.no_grad():
        two.bias[0] = float('nan')
    image = torch.rand(1, 3, 2, 2)
    assert max_difference(one, two, image) == float('inf')
    assert max_difference(two, one, image) == float('inf')


class Magnifying(nn.Module):
    """Nothing but rounding is left in single precision."""

    def forward(self, x):
        return torch.sin(1e6 * x)


def test_rounding_is_told_from_misunderstanding():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 1), nn.Conv2d(64, 4, 1), Magnifying()
    )
    mutator = prepare(model)
    assert [unit.name for unit in mutator.units] == ['0']
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_verifying_leaves_no_trace(zoo):
    torch.manual_seed(0)
    search = zoo.algorithm(zoo.cifar_resnet())
    topk = search.mutator.topk
    for name, value in topk.state_dict().items():
        assert not value.any(), name
    assert search.mutator.masks.table.masks is None
    assert search.training


def test_outputs_of_all_kinds_are_compared():
    a, b, c = torch.rand(1), torch.rand(2), torch.rand(3)
    outputs = [a, {'x': (b, None), 'y': 'text'}, [c]]
    assert [len(tensor) for tensor in flatten_tensors(outputs)] == [1, 2, 3]
    assert flatten_tensors(3) == []
    one, two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1)
    assert max_difference(one, two, torch.rand(1, 3, 2, 2)) == float('inf')
    assert max_difference(one, one, torch.rand(1, 3, 2, 2)) == 0
    with torch.no_grad():
        two = copy.deepcopy(one)
        two.weight *= 1.1
        two.bias *= 1.1
    difference = max_difference(two, one, torch.rand(1, 3, 2, 2))
    assert difference == pytest.approx(0.1, rel=1e-3)


class Compared(nn.Module):
    """One of two models; remembers the sizes that it ran on."""

    def __init__(self, error, least):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.error, self.least, self.seen = error, least, []

    def forward(self, image):
        self.seen.append(tuple(image.shape[2:]))
        assert image.shape[2] >= self.least
        return self.conv(image) + self.error


@pytest.mark.parametrize(
    'error, least, sizes, agree',
    [
        (0.0, 0, [(8, 8)], True),
        (0.0, 12, [(8, 8), (16, 16)], True),
        # In double precision, too, before it is believed.
        (1.0, 0, [(8, 8)] * 2 + [(16, 16)] * 2, False),
    ],
)
def test_the_demo_input_decides_where_a_small_one_does_not(
    error, least, sizes, agree
):
    supernet = Compared(error, least)
    plain = copy.deepcopy(supernet)
    plain.error = 0.0
    comparison = Comparison(supernet, plain, (1, 3, 16, 16), (1, 3, 8, 8))
    supernet.seen.clear()
    with comparison.alive():
        whole = Structure(
            (), (), layers=1, channels=0, resources={}, search={}
        )
        found = comparison.difference(whole)
    assert (found < 1e-4) is agree
    assert supernet.seen == sizes
    assert all(p.dtype == torch.float32 for p in supernet.parameters())
