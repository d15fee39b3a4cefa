import copy

import pytest
import torch
from torch import nn

import dms_mmrazor.plugin  # noqa: F401
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.ranking import PlainRecipe, TrainingFitness
from dms_mmrazor.ranking.candidates import (
    common_budget,
    perturbed,
    resources_of,
    targets_of,
)
from dms_mmrazor.search.export import uniform_structure
from dms_mmrazor.subnet import prune


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(self.conv1(x).relu())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.stage = nn.Sequential(*[Block(16) for _ in range(3)])
        self.wide = nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        x = self.wide(self.stage(self.stem(x)))
        return self.head(x.relu().mean((2, 3)))


@pytest.fixture(scope='module')
def mutator():
    found = DMSMutator(parse_cfg=dict(demo_input=(1, 3, 8, 8)))
    found.prepare_from_supernet(Net())
    return found


@pytest.fixture(scope='module')
def structure(mutator):
    targets = {'macs': 0.5 * mutator.table.full['macs']}
    return uniform_structure(mutator, targets, 1)


def test_perturbations_have_the_same_budget(mutator, structure):
    before = copy.deepcopy(mutator.state_dict())
    found = perturbed(mutator, structure, 3, seed=1, divisor=1)
    assert len(found) == 3
    shapes = {
        tuple(len(u.kept) for u in s.units) + s.stages[0].kept
        for s in [structure, *found]
    }
    assert len(shapes) == 4
    macs = targets_of(structure)['macs']
    for other in found:
        assert resources_of(other)['macs'] == pytest.approx(macs, rel=0.02)
        assert other.search['perturbed'] == {'scale': 0.2}
        prune(Net(), other)
    for key, value in mutator.state_dict().items():
        assert torch.equal(value, before[key])
    again = perturbed(mutator, structure, 3, seed=1, divisor=1)
    assert [s.units for s in again] == [s.units for s in found]
    assert common_budget([structure, *found]) == ['macs']


def test_what_cannot_be_perturbed(mutator, structure):
    with pytest.raises(DMSError, match='perturb=5'):
        perturbed(mutator, structure, 5, scale=0.0, divisor=1)
    other = structure._replace(units=structure.units[:-1])
    with pytest.raises(DMSError, match='another search space'):
        perturbed(mutator, other, 1)
    with pytest.raises(DMSError, match='MACs'):
        perturbed(mutator, structure._replace(resources={}), 1)


def test_a_short_training_is_a_fitness(mutator):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 8, 3, 8, 8, generator=generator)
    loader = [(x, torch.arange(8) % 4) for x in images]
    recipe = PlainRecipe(
        loader,
        lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]),
        lambda m: torch.optim.SGD(m.parameters(), 0.01),
        landscape_batches=1,
    )

    def candidate(structure):
        return lambda: prune(Net(), structure)

    fitness = TrainingFitness(mutator, candidate, recipe, 'landscape')
    choices = dict(mutator.current_choices)
    found = fitness(choices)
    assert found['score'] > 0 and found['seconds'] > 0
    assert fitness(choices)['score'] == found['score']
    wild = TrainingFitness(
        mutator,
        candidate,
        PlainRecipe(
            loader, recipe.loss, lambda m: torch.optim.SGD(m.parameters(), 1e9)
        ),
    )
    assert wild(choices)['score'] == float('-inf')
    with pytest.raises(DMSError, match='mote'):
        TrainingFitness(mutator, candidate, recipe, 'mote')
