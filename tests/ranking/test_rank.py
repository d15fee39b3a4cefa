import json
import math

import pytest
import torch
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.ranking.rank import rank_subnets
from dms_mmrazor.ranking.report import budget_warnings
from dms_mmrazor.ranking.scores import Trajectory

QUALITY = {'good': 3.0, 'fair': 2.0, 'poor': 1.0}
RESOURCES = {
    'good': {'macs': 100.0},
    'fair': {'macs': 101.0},
    'poor': {'macs': 104.0},
}


def train(quality, seed):
    """A training that needs no network."""
    noise = 0.01 * seed
    return Trajectory(
        losses=[1.0, 1 / quality + noise],
        seconds=[1.0, 1.0 + quality / 10],
        landscape=[1.0, 1 / quality + noise],
        accuracy=10 * quality - noise,
        costs={'training': 2.0, 'landscape': 0.5, 'evaluation': 1.0},
    )


def rank(recipe=train, **kwargs):
    settings = dict(seeds=(0, 1), resources=RESOURCES, say=lambda line: None)
    return rank_subnets(QUALITY, recipe, **{**settings, **kwargs})


@pytest.mark.parametrize('score', ['accuracy', 'final_loss', 'landscape'])
def test_best_first_with_seeds_and_seconds(score):
    ranking = rank(score=score)
    assert [row['name'] for row in ranking.rows] == list(QUALITY)
    assert ranking.best == 'good' and ranking.rows[0]['place'] == 1
    assert len(ranking.rows[0]['each']) == 2
    assert ranking.agreement[score] == 1
    seconds = dict(accuracy=3.0, final_loss=2.0, landscape=2.5)
    assert ranking.rows[0]['seconds'] == seconds[score]
    assert 'mote' in ranking.agreement


def test_budgets_that_differ_are_told():
    (warning,) = rank().warnings
    assert 'poor' in warning and 'good' in warning and '4.0%' in warning
    close = {name: {'macs': 100.0} for name in QUALITY}
    assert not rank(resources=close).warnings
    assert not budget_warnings(RESOURCES, ['latency'])


def test_a_diverged_candidate_is_last_with_its_reason():
    def diverges(quality, seed):
        found = train(quality, seed)
        if quality == 3 and seed == 1:
            return found._replace(losses=[], accuracy=None, diverged='nan!')
        return found

    ranking = rank(diverges)
    assert [row['name'] for row in ranking.rows] == ['fair', 'poor', 'good']
    assert ranking.rows[-1]['reason'] == 'seed 1: nan!'
    assert ranking.rows[-1]['score'] == -math.inf
    assert 'diverged' in str(ranking) and 'seed 1: nan!' in str(ranking)


def test_a_killed_ranking_goes_on_with_the_same_result(tmp_path):
    calls = []

    def killed(quality, seed):
        calls.append((quality, seed))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return train(quality, seed)

    folder, said = str(tmp_path / 'out'), []
    with pytest.raises(KeyboardInterrupt):
        rank(killed, folder=folder)
    ranking = rank(killed, folder=folder, say=said.append)
    assert len(calls) == 7  # six trainings, one of them twice
    assert ranking == rank()
    assert said[0].startswith('3 of 6 runs done, about')
    with open(str(tmp_path / 'out' / 'ranking.json')) as file:
        written = json.load(file)
    assert [row['name'] for row in written['rows']] == list(QUALITY)
    assert len(written['runs']) == 6
    assert (tmp_path / 'out' / 'ranking.png').is_file()
    # What results depend on must not change under way.
    killed.settings = {'epochs': 9}
    with pytest.raises(DMSError, match='epochs'):
        rank(killed, folder=folder)


def test_nothing_to_rank_and_scores_that_were_not_measured():
    with pytest.raises(DMSError, match='candidate'):
        rank_subnets({}, train)
    with pytest.raises(DMSError, match='twice'):
        rank(seeds=(0, 0))
    with pytest.raises(DMSError, match='same files'):
        rank_subnets({'a/b': 1.0, 'a_b': 2.0}, train)
    with pytest.raises(DMSError, match='magic'):
        rank(score='magic')

    def bare(quality, seed):
        return train(quality, seed)._replace(landscape=())

    for score in ('landscape', 'mote'):
        with pytest.raises(DMSError, match='landscape_batches'):
            rank(bare, score=score)


def test_models_are_counted():
    nets = {
        str(width): lambda width=width: nn.Sequential(
            nn.Conv2d(3, width, 1, bias=False)
        )
        for width in (2, 3)
    }
    ranking = rank_subnets(
        nets,
        lambda build, seed: train(1.0, seed),
        example_inputs=torch.zeros(1, 3, 4, 4),
        say=lambda line: None,
    )
    macs = {row['name']: row['resources'] for row in ranking.rows}
    assert macs['2'] == {'macs': 96, 'params': 6}
    assert any('50.0%' in line for line in ranking.warnings)


class Makes:
    """A recipe that must not be called."""

    evaluate = None
    landscape_batches = 0

    def __call__(self, build, seed):
        raise AssertionError


@pytest.mark.parametrize(
    'candidates, settings, words',
    [
        ({'a': 1, 'b': 2}, dict(score='accuracy'), 'needs an evaluation'),
        ({'a': 1, 'b': 2}, dict(score='landscape'), 'landscape_batches'),
        ({'a': 1}, dict(score='tse', seeds=2), 'a list .*, got 2'),
        (['a'], dict(score='tse'), 'a dict, name'),
        ({'a': nn.Linear(2, 2)}, dict(score='tse'), "'a' is a model"),
        ({'a': 'gone.yaml'}, dict(score='tse'), 'gone.yaml: No such file'),
    ],
)
def test_what_cannot_be_ranked_is_told_before_a_training(
    candidates, settings, words
):
    with pytest.raises(DMSError, match=words):
        rank_subnets(candidates, Makes(), **settings)


def test_a_file_that_has_changed_is_trained_again(tmp_path):
    path = tmp_path / 'subnet.yaml'
    path.write_text('first')
    seen = []

    def reads(candidate, seed):
        seen.append(path.read_text())
        return train(2.0, seed)

    for text in ('first', 'first', 'second'):
        path.write_text(text)
        try:
            rank_subnets(
                {'a': str(path)}, reads, seeds=[0], folder=str(tmp_path)
            )
        except DMSError as error:
            assert 'content' in str(error)
            seen.append('refused')
    assert seen == ['first', 'refused']


def test_resources_are_counted_for_any_inputs_and_compared():
    class Sum(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.first = nn.Linear(4, width)
            self.last = nn.Linear(width, 2)

        def forward(self, x, scale):
            return self.last(self.first(x) * scale)

    nets = {f'net{n}': lambda n=n: Sum(n) for n in (8, 32)}
    inputs = dict(x=torch.rand(1, 4), scale=torch.ones(1))
    settings = dict(score='tse', seeds=[0], say=lambda line: None)

    def recipe(build, seed):
        return train(2.0, seed)

    counted = rank_subnets(nets, recipe, example_inputs=inputs, **settings)
    macs = {row['name']: row['resources']['macs'] for row in counted.rows}
    assert macs == {'net8': 8 * 6, 'net32': 32 * 6}
    for ranking, kind in ((counted, 'macs'), (None, 'params')):
        ranking = ranking or rank_subnets(nets, recipe, **settings)
        assert f'more {kind} than net8' in ranking.warnings[0]
