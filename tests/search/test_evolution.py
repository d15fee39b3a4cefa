"""What evolution tries, without a runner."""

import itertools
import random
from collections import Counter

import pytest

from dms_mmrazor.errors import DMSError
from dms_mmrazor.search.evolution import Evolution, EvolutionSettings
from dms_mmrazor.supernet import choice_space
from dms_mmrazor.supernet.choice_space import ChoiceSpace


@pytest.fixture(scope='module')
def mutator():
    """Of a network with two stages of two blocks, in few wide steps."""
    from torch import nn

    from dms_mmrazor.models.mutators import DMSMutator

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(8, 12, 3, padding=1)
            self.two = nn.Conv2d(12, 8, 3, padding=1)

        def forward(self, x):
            return x + self.two(self.one(x).relu())

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3)
            self.stage = nn.Sequential(Block(), Block())
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.stage(self.stem(x)).mean((2, 3)))

    mutator = DMSMutator(
        parse_cfg=dict(demo_input=(1, 3, 8, 8)),
        channel_unit_cfg=dict(
            type='DMSChannelUnit', default_args=dict(step=4)
        ),
        importance=dict(metric='index'),
        verify=False,
    )
    mutator.prepare_from_supernet(Net())
    return mutator


@pytest.fixture
def space(mutator):
    return ChoiceSpace(mutator, {'macs': 0.5 * mutator.table.full['macs']})


def feasible(space):
    everything = itertools.product(*space.allowed)
    named = [dict(zip(space.names, values)) for values in everything]
    return [choices for choices in named if space.fits(choices)]


def key(choices):
    return tuple(sorted(choices.items()))


@pytest.mark.parametrize('tries, each', [(100, 20), (0, 8)])
def test_samples_are_uniform_within_the_budget(
    space, monkeypatch, tries, each
):
    monkeypatch.setattr(choice_space, 'TRIES', tries)
    monkeypatch.setattr(choice_space, 'SWEEPS', 6)
    possible = feasible(space)
    assert 5 < len(possible) < len(list(itertools.product(*space.allowed)))
    draw = random.Random(0)
    counts = Counter(
        key(space.sample(draw)) for _ in range(each * len(possible))
    )
    assert set(counts) == {key(choices) for choices in possible}
    chi = sum((counts[key(c)] - each) ** 2 / each for c in possible)
    freedom = len(possible) - 1
    assert chi < freedom + 4 * (2 * freedom) ** 0.5


def test_space_agrees_with_the_mutator(mutator, space):
    assert len(space.names) == 4  # stem, two inner widths, one stage
    for seed in range(5):
        choices = space.sample(random.Random(seed))
        for kind, value in space.resources(choices).items():
            assert value == pytest.approx(mutator.resource_of(kind, choices))
    assert space.smallest == mutator.sample_choices('min')
    assert space.largest == mutator.sample_choices('max')
    targets = space.targets
    same = [mutator.sample_choices(targets=targets, seed=3) for _ in range(2)]
    assert same[0] == same[1] and space.fits(same[0])
    with pytest.raises(DMSError, match='kind'):
        mutator.sample_choices('middle')
    with pytest.raises(DMSError, match='smallest'):
        ChoiceSpace(mutator, {'macs': 1.0})


def test_children(space):
    draw = random.Random(0)
    parents = [space.sample(draw) for _ in range(2)]
    for _ in range(50):
        child = space.cross(*parents, draw)
        assert space.fits(child)
        mutant = space.mutate(parents[0], 0.25, draw)
        assert space.fits(mutant)
    assert space.mutate(parents[0], 0.0, draw) == parents[0]


def worth(choices):
    return {'score': choices['stem'] + 0.1 * sum(choices.values())}


def test_evolution_finds_the_best_of_a_small_space(space):
    settings = EvolutionSettings(8, 6, 4, 4, 0.5)
    best = Evolution(space, settings).run(worth)
    wanted = max(feasible(space), key=lambda c: worth(c)['score'])
    assert best.score == worth(wanted)['score']
    assert space.resources(best.choices)['macs'] <= space.targets['macs']


def test_known_candidates_are_not_judged_again(space):
    settings = EvolutionSettings(6, 4, 3, 3, 0.5, seed=2)
    first, judged = Evolution(space, settings), []
    first.run(worth)

    def counted(choices):
        judged.append(choices)
        return worth(choices)

    again = Evolution(space, settings)
    again.run(counted, first.candidates[:10])
    assert again.candidates == first.candidates
    new = {key(c.choices) for c in first.candidates[10:]}
    old = {key(c.choices) for c in first.candidates[:10]}
    assert {key(choices) for choices in judged} == new - old
    assert len(judged) == len(new - old)
    other = Evolution(space, settings._replace(seed=3))
    with pytest.raises(DMSError, match='another search'):
        other.run(worth, first.candidates[:10])


def test_settings_and_scores_that_cannot_be_meant(space):
    for wrong in (dict(population=0), dict(mutations=60)):
        settings = EvolutionSettings()._replace(**wrong)
        with pytest.raises(DMSError, match=next(iter(wrong))):
            settings.check('loop')
    with pytest.raises(DMSError, match='mutation_prob'):
        EvolutionSettings(mutation_prob=0).check('loop')
    with pytest.raises(DMSError, match='score'):
        Evolution(space, EvolutionSettings(2, 1)).run(lambda c: {})
