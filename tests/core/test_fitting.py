import itertools
import math

import pytest
import torch

from dms_mmrazor.core import Dim, ResourceModel, Term, fit_to_targets


def is_allowed(number, minimum, maximum, divisor):
    return minimum <= number <= maximum and (
        number % divisor == 0 or number == maximum
    )


def cost(model, kept, blocks):
    return float(model(torch.tensor(kept), torch.tensor(blocks)))


def random_wish(rng, sizes):
    return [size * rng.uniform(0.05, 1.0) for size in sizes]


def single(coefficients):
    """A resource that is a weighted sum of the units."""
    terms = [
        Term(str(index), value, (Dim(units=((index, 1.0),)),))
        for index, value in enumerate(coefficients)
    ]
    return ResourceModel(terms, len(coefficients), 0)


@pytest.mark.parametrize('divisor, close', [(1, 0.995), (8, 0.99)])
@pytest.mark.parametrize('portion', [0.1, 0.3, 0.7])
@pytest.mark.parametrize('seed', range(3))
def test_meets_the_target_closely(
    resnet50, rng, seed, portion, divisor, close
):
    rng.seed(seed)
    sizes = resnet50.sizes
    blocks = [float(rng.random() < 0.8) for _ in range(12)]
    target = portion * cost(resnet50.macs, sizes, blocks)
    result = fit_to_targets(
        {'macs': resnet50.macs},
        {'macs': target},
        random_wish(rng, sizes),
        [1] * len(sizes),
        sizes,
        blocks,
        [divisor] * len(sizes),
    )
    found = cost(resnet50.macs, result.kept, blocks)
    assert close * target <= found <= target
    assert result.resources == {'macs': found}
    for number, size in zip(result.kept, sizes):
        assert is_allowed(number, 1, size, divisor)


@pytest.mark.parametrize('divisor', [1, 8])
def test_two_targets(resnet50, rng, divisor):
    sizes, blocks = resnet50.sizes, [1.0] * 12
    models = {'macs': resnet50.macs, 'params': resnet50.params}
    targets = {
        name: 0.4 * cost(model, sizes, blocks)
        for name, model in models.items()
    }
    result = fit_to_targets(
        models,
        targets,
        random_wish(rng, sizes),
        [1] * len(sizes),
        sizes,
        blocks,
        [divisor] * len(sizes),
    )
    used = [result.resources[name] / targets[name] for name in targets]
    assert max(used) <= 1 and max(used) >= 0.99


@pytest.mark.parametrize('divisor', [1, 8])
@pytest.mark.parametrize('gap', [0.0, 0.015])
def test_a_wish_near_the_target_changes_little(resnet50, rng, divisor, gap):
    sizes, blocks = resnet50.sizes, [1.0] * 12
    wish = random_wish(rng, sizes)
    nearest = [max(1, round(number / divisor)) * divisor for number in wish]
    target = cost(resnet50.macs, nearest, blocks) / (1 - gap)
    result = fit_to_targets(
        {'macs': resnet50.macs},
        {'macs': target},
        wish,
        [1] * len(sizes),
        sizes,
        blocks,
        [divisor] * len(sizes),
    )
    assert result.resources['macs'] >= 0.995 * target
    pairs = list(zip(result.kept, nearest))
    assert result.changes == sum(a != b for a, b in pairs)
    assert all(b <= a for a, b in pairs) and result.swaps == 0
    if gap == 0:
        assert result.changes == 0
    else:
        grown = [
            (a - w) / size for a, w, size in zip(result.kept, wish, sizes)
        ]
        assert max(grown) < max(0.05, 1.01 * divisor / 64)


def test_a_wish_on_the_target_is_not_touched():
    model = single([1.0, 2.0])
    result = fit_to_targets(
        {'r': model}, {'r': 50.0}, [10.4, 19.6], [1, 1], [64, 64], [], [1, 1]
    )
    assert result.kept == [10, 20]
    assert result.changes == 0


def test_a_wish_far_below_is_filled_by_a_common_shift():
    model = single([1.0, 1.0])
    result = fit_to_targets(
        {'r': model},
        {'r': 100.0},
        [10.0, 20.0],
        [1, 1],
        [100, 100],
        [],
        [1, 1],
    )
    assert result.kept == [45, 55]
    assert result.shift == pytest.approx(0.35, abs=0.01)


def test_unreachable_upward_keeps_everything():
    result = fit_to_targets(
        {'r': single([1.0, 1.0])},
        {'r': 1e6},
        [10.0, 20.0],
        [1, 1],
        [100, 99],
        [],
        [8, 8],
    )
    assert result.kept == [100, 99]


def test_small_spaces_against_all_choices():
    # With few coarse units nothing allowed may fit in after the result.
    model = single([3.0, 5.0, 7.0])
    sizes = [20, 33, 16]
    choices = [[8, 16, 20], [8, 16, 24, 32, 33], [8, 16]]
    costs = {
        sum(a * b for a, b in zip((3, 5, 7), kept)): list(kept)
        for kept in itertools.product(*choices)
    }
    for target in range(min(costs), max(costs) + 20, 7):
        result = fit_to_targets(
            {'r': model},
            {'r': target},
            [12.0] * 3,
            [1] * 3,
            sizes,
            [],
            [8] * 3,
        )
        assert result.resources['r'] in costs
        assert result.resources['r'] <= target
        best = max(value for value in costs if value <= target)
        assert result.resources['r'] >= min(best, 0.99 * target)


def test_equal_units_do_not_move_in_lockstep():
    # All wishes round at the same shift: the filling must break the tie.
    model = single([1.0] * 10)
    result = fit_to_targets(
        {'r': model},
        {'r': 165.0},
        [12.0] * 10,
        [1] * 10,
        [32] * 10,
        [],
        [1] * 10,
    )
    assert sum(result.kept) == 165
    assert sorted(result.kept) == [16] * 5 + [17] * 5


def test_units_without_cost_keep_their_wish():
    terms = [
        Term('a', 1.0, (Dim(units=((0, 1.0),)),)),
        Term('b', 1.0, (Dim(units=((1, 1.0),)),), 0),
    ]
    result = fit_to_targets(
        {'r': ResourceModel(terms, 2, 1)},
        {'r': 30.0},
        [10.0, 10.2],
        [1, 1],
        [64, 64],
        [0.0],
        [1, 1],
    )
    assert result.kept == [30, 10]
    assert result.changes == 1


@pytest.mark.parametrize(
    'wish, minimum, maximum, divisor, expected',
    [
        (3.0, 1, 64, 8, 8),
        (3.0, 1, 6, 8, 6),
        (61.0, 60, 62, 8, 62),
        (99.0, 1, 100, 8, 100),
        (97.0, 1, 100, 8, 96),
        (0.3, 0, 4, 1, 0),
        (20.0, 17, 64, 8, 24),
        (12.0, 1, 64, 8, 16),
        (-3.0, 1, 64, 8, 8),
    ],
)
def test_allowed_numbers(wish, minimum, maximum, divisor, expected):
    terms = [
        Term('a', 1.0, (Dim(1.0),)),
        Term('b', 1.0, (Dim(units=((0, 1.0),)),), 0),
    ]
    result = fit_to_targets(
        {'r': ResourceModel(terms, 1, 1)},
        {'r': 1.0},
        [wish],
        [minimum],
        [maximum],
        [0.0],
        [divisor],
    )
    assert result.kept == [expected]


def test_deterministic(resnet50, rng):
    sizes, blocks = resnet50.sizes, [1.0] * 12
    target = 0.4 * cost(resnet50.macs, sizes, blocks)
    arguments = (
        {'macs': resnet50.macs},
        {'macs': target},
        random_wish(rng, sizes),
        [1] * len(sizes),
        sizes,
        blocks,
        [8] * len(sizes),
    )
    assert fit_to_targets(*arguments) == fit_to_targets(*arguments)


def test_smallest_reachable_value_is_named():
    with pytest.raises(ValueError, match="'r' of 30 .* need 40"):
        fit_to_targets(
            {'r': single([1.0, 4.0])},
            {'r': 30.0},
            [9.0, 9.0],
            [1, 1],
            [64, 64],
            [],
            [8, 8],
        )


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(targets={'s': 1.0}), 'same names'),
        (dict(models={}, targets={}), 'at least one'),
        (dict(targets={'r': 0.0}), 'positive'),
        (dict(targets={'r': math.nan}), 'positive'),
        (dict(kept=[1.0, 1.0]), 'kept must have one entry'),
        (dict(divisor=[1, 1]), 'divisor must have one entry'),
        (dict(divisor=[0]), 'unit 0'),
        (dict(minimum=[9]), 'unit 0'),
        (dict(kept=[math.nan]), 'diverged'),
        (dict(block_mask=[1.0]), 'block_mask must have shape'),
    ],
)
def test_errors(changes, message):
    arguments = dict(
        models={'r': single([1.0])},
        targets={'r': 4.0},
        kept=[4.0],
        minimum=[1],
        maximum=[8],
        block_mask=[],
        divisor=[1],
    )
    arguments.update(changes)
    with pytest.raises(ValueError, match=message):
        fit_to_targets(**arguments)


@pytest.mark.parametrize(
    'prices, kept', [([1, 2], [8, 16]), ([2, 1], [16, 8])]
)
def test_what_is_too_much_is_paid_where_it_is_cheapest(prices, kept):
    """Both wish 12, which rounds up; one step of 8 is too much."""
    result = fit_to_targets(
        {'r': single([1.0, 1.0])},
        {'r': 24.0},
        [12.0, 12.0],
        [1, 1],
        [64, 64],
        [],
        [8, 8],
        prices,
    )
    assert result.kept == kept


@pytest.mark.parametrize(
    'prices, kept', [([1, 2], [8, 16]), ([2, 1], [16, 8])]
)
def test_what_is_left_goes_to_who_gains_most(prices, kept):
    """Both wish 11, which rounds down; one step of 8 is left."""
    result = fit_to_targets(
        {'r': single([1.0, 1.0])},
        {'r': 24.0},
        [11.0, 11.0],
        [1, 1],
        [64, 64],
        [],
        [8, 8],
        prices,
    )
    assert result.kept == kept


def test_the_greedy_choice_is_near_the_cheapest_of_all(rng):
    """Loss of the rounding, against all allowed numbers of five units."""
    sizes, portions = [24, 32, 40, 48, 64], [0.55, 0.4, 0.7, 0.35, 0.5]
    costs = [3.0, 2.0, 2.0, 1.5, 1.0]
    wish = [size * part for size, part in zip(sizes, portions)]

    def resource(kept):
        return sum(c * k for c, k in zip(costs, kept))

    for seed in range(4):
        rng.seed(seed)
        prices = [rng.uniform(0.5, 2) for _ in sizes]
        shares = [c * w for c, w in zip(costs, wish)]

        def loss(kept, prices=prices, shares=shares):
            rows = zip(prices, shares, wish, kept)
            return sum(p * s * (w / k - 1) for p, s, w, k in rows)

        result = fit_to_targets(
            *({'r': single(costs)}, {'r': resource(wish)}, wish),
            *([1] * 5, sizes, []),
            *([8] * 5, prices),
        )
        used = result.resources['r']
        fitting = [
            kept
            for kept in itertools.product(*(range(8, n + 1, 8) for n in sizes))
            if used <= resource(kept) <= resource(wish)
        ]
        losses = sorted(loss(kept) for kept in fitting)
        assert loss(result.kept) <= losses[len(losses) // 10]
