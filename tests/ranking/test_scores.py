import math

import pytest
from scipy import stats

from dms_mmrazor.errors import DMSError
from dms_mmrazor.ranking import scores
from dms_mmrazor.ranking.scores import Trajectory, score_all

TOY = Trajectory(
    losses=[2.0, 1.0, 0.5],
    seconds=[4.0, 2.0, 1.0],
    landscape=[2.0, 4.0, 0.5],
    accuracy=60.0,
)


def test_formulas_against_values_computed_by_hand():
    assert scores.accuracy(TOY) == 60
    assert scores.final_loss(TOY) == -0.5
    assert scores.tse(TOY) == -3.5
    assert scores.tse(TOY, burn_in=0.4) == -1.5
    assert scores.landscape(TOY) == 0.5 + 0.25 + 2
    assert scores.speed(TOY) == pytest.approx(7 / (3.5 / 3))
    assert scores.speed(TOY, 'text') == -(0.5 + 0.5 + 0.5)


def test_mote_is_the_weighted_sum_of_both_transformed_terms():
    landscapes, speeds = [1.0, 2.0, 4.0, 9.0], [3.0, 5.0, 4.0, 6.0]
    weights = scores.MoteWeights()
    exponent = stats.boxcox(landscapes)[1]
    other = stats.boxcox(speeds)[1]
    expected = [
        0.86**2 * 1.216 * (a**exponent - 1) / exponent
        + 0.617**2 * 0.961 * (b**other - 1) / other
        for a, b in zip(landscapes, speeds)
    ]
    assert scores.mote(landscapes, speeds, weights) == pytest.approx(expected)
    # Terms that are equal for all say nothing.
    same = scores.mote([2.0, 2.0], [1.0, 3.0])
    assert same[1] > same[0]


def test_what_was_not_measured_is_no_score():
    bare = TOY._replace(landscape=(), accuracy=None)
    with pytest.raises(DMSError, match='val_dataloader'):
        scores.accuracy(bare)
    with pytest.raises(DMSError, match='landscape_batches'):
        scores.landscape(bare)
    with pytest.raises(DMSError, match='released'):
        scores.speed(TOY, 'fast')
    with pytest.raises(DMSError, match='accurcy'):
        scores.check_score('accurcy')
    table = score_all({'a': TOY, 'b': bare})
    assert set(table) == {'final_loss', 'tse', 'speed'}


def test_divergence_is_told_and_stands_last():
    assert 'nan' in scores.divergence(2.0, math.nan)
    assert '2' in scores.divergence(2.0, 50.0)
    assert not scores.divergence(2.0, 4.0)
    lost = TOY._replace(losses=[math.nan], diverged='loss became nan')
    table = score_all({'a': TOY, 'lost': lost, 'b': TOY})
    assert set(table) == set(scores.SCORES) == set(scores.WORTH)
    assert all(column['lost'] == -math.inf for column in table.values())
    assert all(math.isfinite(column['a']) for column in table.values())


def test_a_landscape_with_an_infinite_loss_gets_nothing_for_it():
    hole = TOY._replace(landscape=[2.0, math.inf, math.nan])
    assert scores.landscape(hole) == 0.5
