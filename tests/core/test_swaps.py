import itertools

import pytest
import torch

from dms_mmrazor.core import Dim, ResourceModel, Term, fit_to_targets
from dms_mmrazor.core.allowed import Unit
from dms_mmrazor.core.budget import Budget
from dms_mmrazor.core.fitting import swap_towards


def single(coefficients):
    """A resource that is a weighted sum of the units."""
    terms = [
        Term(str(index), value, (Dim(units=((index, 1.0),)),))
        for index, value in enumerate(coefficients)
    ]
    return ResourceModel(terms, len(coefficients), 0)


def swap(coefficients, target, counts, wishes, divisor=8, window=0.01):
    units = [
        Unit(index, wish, 1, 64, divisor) for index, wish in enumerate(wishes)
    ]
    budget = Budget({'r': single(coefficients)}, {'r': target}, [])
    return swap_towards(budget, units, counts, torch.ones(len(units)), window)


def test_one_goes_up_and_one_goes_down():
    # 248 of 256, and no further step of 80 fits; the other way round it is
    # 256.
    kept, swaps = swap([11.0, 10.0], 256.0, [8, 16], [12.0, 12.0])
    assert (kept, swaps) == ([16, 8], 1)


def test_close_enough_is_left_alone():
    kept, swaps = swap([11.0, 10.0], 249.0, [8, 16], [16.0, 8.0])
    assert (kept, swaps) == ([8, 16], 0)


def test_several_swaps():
    # Two swaps gain 2 · 8 each; one is not enough.
    coefficients = [11.0, 9.0, 11.0, 9.0]
    counts = [8, 16, 8, 16]
    cost = sum(a * b for a, b in zip(coefficients, counts))
    kept, swaps = swap(
        coefficients, cost + 33.0, counts, [12.0] * 4, window=0.004
    )
    assert kept == [16, 8, 16, 8] and swaps == 2


def test_the_least_change_within_the_window():
    # Both pairs gain the same; one of them goes towards its wishes.
    coefficients = [11.0, 10.0, 11.0, 10.0]
    counts = [8, 16, 8, 16]
    wishes = [8.0, 16.0, 12.0, 12.0]
    cost = sum(a * b for a, b in zip(coefficients, counts))
    kept, swaps = swap(coefficients, cost + 8.5, counts, wishes)
    assert kept == [8, 16, 16, 8] and swaps == 1


def test_what_cannot_come_closer_stays():
    kept, swaps = swap([10.0, 10.0], 329.0, [16, 16], [16.0, 16.0])
    assert (kept, swaps) == ([16, 16], 0)
    budget = Budget({'r': single([1.0])}, {'r': 9.0}, [])
    assert swap_towards(budget, [], [1], torch.ones(0), 0.01) == ([1], 0)


@pytest.mark.parametrize('preceding, number', [(8, 16), (16, 20), (8, 8)])
def test_the_number_before(preceding, number):
    assert Unit(0, 10.0, 1, 20, 8).preceding(number) == preceding


def reachable(coefficients, sizes, target):
    """The most that allowed numbers cost without exceeding the target."""
    choices = [sorted({*range(8, size + 1, 8), size}) for size in sizes]
    costs = (
        sum(a * b for a, b in zip(coefficients, kept))
        for kept in itertools.product(*choices)
    )
    return max(cost for cost in costs if cost <= target)


@pytest.mark.parametrize('seed', range(6))
def test_narrow_networks_come_within_one_percent(rng, seed):
    """Wherever the space allows: all numbers have been tried."""
    rng.seed(seed)
    sizes = [16, 16, 32, 32, 64, 64, 64]
    coefficients = [rng.uniform(4, 8) * 64 / size for size in sizes]
    model = single(coefficients)
    whole = sum(a * b for a, b in zip(coefficients, sizes))
    for portion in (0.75, 0.5, 0.35):
        target = portion * whole
        wish = [
            size * min(1, rng.uniform(0.6, 1.4) * portion) for size in sizes
        ]
        result = fit_to_targets(
            {'r': model},
            {'r': target},
            wish,
            [1] * len(sizes),
            sizes,
            [],
            [8] * len(sizes),
        )
        best = reachable(coefficients, sizes, target)
        assert result.resources['r'] <= target
        assert result.resources['r'] >= min(0.99 * target, best - 1e-9)
        near = [abs(k - w) for k, w in zip(result.kept, wish)]
        assert max(near) <= 8 + 64 * abs(result.shift) + 8 * result.swaps
