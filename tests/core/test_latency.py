import itertools
import math

import pytest
import torch

from dms_mmrazor.core import LatencyFit, fit_latency, rank_correlation
from dms_mmrazor.core.latency import nonnegative_least_squares

GRID = list(itertools.product([0.1, 0.3, 0.6, 1.0], repeat=2))


def fit(function, points=GRID, weights=None):
    x, y = zip(*points)
    return fit_latency(x, y, [function(*p) for p in points], weights)


@pytest.mark.parametrize(
    'parts', [(1, 2, 3, 4), (0.5, 0, 0, 1), (0, 0, 2, 0), (3, 0, 0, 0)]
)
def test_recovers_what_is_bilinear(parts):
    a, b, c, d = parts
    found = fit(lambda x, y: a + b * x + c * y + d * x * y)
    assert found.full == pytest.approx(sum(parts))
    expected = [part / sum(parts) for part in parts]
    assert found.shares == pytest.approx(expected, abs=1e-9)
    assert found.error < 1e-9 and found.worst < 1e-9


def test_the_ratio_of_the_whole_layer_is_one():
    found = fit(lambda x, y: 1 + math.sqrt(x) + y**2)
    assert found.ratio(1, 1) == pytest.approx(1)
    assert found.ratio(0.5, 0.25) == pytest.approx(
        found.shares[0]
        + 0.5 * found.shares[1]
        + 0.25 * found.shares[2]
        + 0.125 * found.shares[3]
    )
    assert 0 < found.error < found.worst < 0.5


def test_the_errors_are_those_of_the_points():
    found = fit(lambda x, y: 1 + math.sqrt(x) + y**2)
    errors = [
        abs(found.full * found.ratio(x, y) / (1 + math.sqrt(x) + y**2) - 1)
        for x, y in GRID
    ]
    assert found.error == pytest.approx(sum(errors) / len(errors))
    assert found.worst == pytest.approx(max(errors))


def test_never_falls_when_more_is_kept():
    # Wider is faster here: the best that never falls is a constant.
    found = fit(lambda x, y: 2 - x * y)
    assert min(found.shares) >= 0
    assert found.shares[0] == pytest.approx(1)


def test_a_side_that_is_not_searched_is_part_of_the_constant():
    points = [(1.0, y) for y in (0.25, 0.5, 1.0)]
    found = fit(lambda x, y: 1 + 3 * y, points)
    assert found.shares == pytest.approx((0.25, 0, 0.75, 0), abs=1e-9)


def test_weights():
    points, times = [(1, 1), (1, 1)], [1.0, 3.0]
    x, y = zip(*points)
    heavy = fit_latency(x, y, times, [1000, 1])
    assert heavy.full == pytest.approx(1, rel=1e-5)
    even = fit_latency(x, y, times, [1, 1])
    assert even.full == pytest.approx(2)
    # Relative errors by default: (1 - t)² + (1 - t / 3)².
    assert fit_latency(x, y, times).full == pytest.approx(1.2)


@pytest.mark.parametrize(
    'arguments',
    [
        ([], [], []),
        ([1], [1, 1], [1]),
        ([1], [1], [0.0]),
        ([1], [1], [-1.0]),
        ([1], [1], [math.nan]),
        ([math.inf], [1], [1.0]),
        ([1], [1], [1.0], [0.0]),
        ([1], [1], [1.0], [1.0, 1.0]),
    ],
)
def test_points_that_cannot_be(arguments):
    with pytest.raises(ValueError):
        fit_latency(*arguments)


@pytest.mark.parametrize('seed', range(5))
def test_no_other_solution_is_better(seed):
    torch.manual_seed(seed)
    matrix = torch.rand(12, 4, dtype=torch.float64)
    target = torch.randn(12, dtype=torch.float64)
    found = nonnegative_least_squares(matrix, target)
    assert (found >= 0).all()
    # Karush-Kuhn-Tucker: no step within the constraints descends.
    gradient = matrix.t() @ (matrix @ found - target)
    assert (gradient > -1e-9).all()
    assert (gradient * found).abs().max() < 1e-9


def test_nothing_fits():
    matrix = torch.ones(3, 2)
    found = nonnegative_least_squares(matrix, -torch.ones(3))
    assert found.tolist() == [0, 0]


def test_rank_correlation():
    assert rank_correlation([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert math.isnan(rank_correlation([1, 2], [5, 5]))
    # By hand: ranks 0, 1.5, 1.5, 3 and 0, 1, 2, 3.
    expected = 4.5 / math.sqrt(4.5 * 5)
    got = rank_correlation([1, 2, 2, 3], [1, 2, 3, 4])
    assert got == pytest.approx(expected)


def test_is_plain_data():
    found = LatencyFit(2.0, (0.25, 0.25, 0.25, 0.25), 0.0, 0.0)
    assert found.ratio(0, 0) == 0.25
    assert found.ratio(1, 0) == 0.5
