"""The rules by which a structure moves, against their formulas."""

import math

import pytest
import torch

from dms_mmrazor.core import Constraint, StructureStep
from dms_mmrazor.core.structure_step import RULES

ALL = pytest.mark.parametrize('rule', RULES)


def constraint(grad, excess, weight=None):
    weight = [1.0] * len(excess) if weight is None else weight
    tensors = [
        torch.tensor(value, dtype=torch.float64)
        for value in (grad, excess, weight)
    ]
    return Constraint(*tensors)


def move(step, ratio, task, bound, lower=0.0, upper=0.9):
    """The ratios after a step."""
    ratio = torch.tensor(ratio)
    limits = [
        torch.zeros_like(ratio) + torch.tensor(x) for x in (lower, upper)
    ]
    step.move_(ratio, torch.tensor(task), bound, *limits)
    return ratio


def test_plain_is_equation_7():
    """a − lr · (g + Σ λ_r c_r), of the targets that are missed."""
    step = StructureStep(2, 'plain', lr=0.1)
    bound = constraint([[-1.0, -0.5], [-0.2, -0.4]], [0.3, 0.1], [2.0, 0.5])
    found = move(step, [0.4, 0.4], [0.5, -1.0], bound)
    expected = [0.4 - 0.1 * (0.5 - 2.1), 0.4 - 0.1 * (-1.0 - 1.2)]
    torch.testing.assert_close(found, torch.tensor(expected))
    bound = constraint([[-1.0, -0.5], [-0.2, -0.4]], [-0.3, 0.0], [2.0, 0.5])
    found = move(step, [0.4, 0.4], [0.5, -1.0], bound)
    torch.testing.assert_close(found, torch.tensor([0.35, 0.5]))


def test_the_first_step_of_adam_is_its_rate():
    step = StructureStep(3, 'adam', lr=0.01)
    bound = constraint([[-1.0, -1e-3, -0.5]], [0.1])
    found = move(step, [0.4] * 3, [2.0, 0.0, 0.1], bound)
    torch.testing.assert_close(found, torch.tensor([0.39, 0.41, 0.41]))


def test_adam_averages_the_whole_gradient():
    step = StructureStep(1, 'adam', lr=0.01, average=0.5)
    ratio = [0.4]
    for task in (1.0, 3.0):
        bound = constraint([[-1.0]], [-math.inf])
        ratio = move(step, ratio, [task], bound).tolist()
    mean = (0.5 * 0.5 + 0.5 * 3) / 0.75
    square = (0.999 * 1e-3 + 1e-3 * 9) / (1 - 0.999**2)
    assert ratio[0] == pytest.approx(
        0.39 - 0.01 * mean / square**0.5, abs=1e-6
    )


def test_price_moves_against_what_is_dearer_than_usual():
    """At the target; to first order the resource stays where it is."""
    step = StructureStep(3, 'price', lr=0.01)
    share = torch.tensor([0.5, 0.25, 0.25])
    bound = constraint([(-share).tolist()], [0.0])
    task = torch.tensor([1.0, 0.25, 0.0])  # prices of 2, 1 and 0
    found = move(step, [0.4] * 3, task.tolist(), bound)
    scale = 1.25 / 1.0  # the usual price: Σ|g| / Σ share
    price = torch.tensor([2.0, 1.0, 0.0]) / scale
    expected = 0.4 - 0.01 * (price - (share * price).sum())
    torch.testing.assert_close(found, expected)
    assert float((share * (found - 0.4)).sum()) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize('factor', [1e-6, 1e6])
def test_price_does_not_depend_on_the_scale_of_the_loss(factor):
    found = []
    for scale in (1.0, factor):
        step, ratio = StructureStep(2, 'price', lr=0.01), [0.4, 0.4]
        for task in ([1.0, 0.2], [0.4, 0.6]):
            task = [scale * value for value in task]
            bound = constraint([[-0.6, -0.4]], [0.01])
            ratio = move(step, ratio, task, bound).tolist()
        found.append(ratio)
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_price_brings_the_resource_to_its_target_together():
    """Equal prices: all move by the excess over the sum of shares."""
    step = StructureStep(2, 'price', lr=0.01)
    bound = constraint([[-0.6, -0.2]], [0.004])
    found = move(step, [0.4, 0.4], [0.6, 0.2], bound)
    torch.testing.assert_close(found, torch.tensor([0.405, 0.405]))
    step = StructureStep(2, 'price', lr=0.01)
    bound = constraint([[-0.6, -0.2]], [-0.004])
    found = move(step, [0.4, 0.4], [0.6, 0.2], bound)
    torch.testing.assert_close(found, torch.tensor([0.395, 0.395]))


def test_who_is_at_a_limit_leaves_the_target_to_the_others():
    step = StructureStep(2, 'price', lr=0.01)
    bound = constraint([[-0.6, -0.2]], [0.002])
    upper = [0.4, 0.9]
    found = move(step, [0.4, 0.4], [0.6, 0.2], bound, upper=upper)
    torch.testing.assert_close(found, torch.tensor([0.4, 0.41]))


@ALL
def test_limits_are_kept_and_what_is_held_stays(rule):
    step = StructureStep(4, rule, lr=1.0)
    bound = constraint([[-0.5, -0.2, -0.2, 0.0]], [3.0])
    lower, upper = [0.0, 0.0, 0.3, 0.0], [0.5, 0.7, 0.3, 0.9]
    ratio = [0.1, 0.6, 0.3, 0.2]
    for sign in (1.0, -1.0, 1.0):
        task = [9 * sign, -9 * sign, 0.0, 0.0]
        ratio = move(step, ratio, task, bound, lower, upper).tolist()
        for value, low, high in zip(ratio, lower, upper):
            assert low - 1e-7 <= value <= high + 1e-7
        assert ratio[2] == pytest.approx(0.3)


@ALL
@pytest.mark.parametrize('where', ['task', 'constraint'])
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_numbers_that_are_not_finite_change_nothing(rule, where, value):
    step = StructureStep(2, rule, lr=0.01)
    good = constraint([[-0.6, -0.4]], [0.01])
    ratio = move(step, [0.4, 0.5], [1.0, 0.2], good)
    before = {k: v.clone() for k, v in step.state_dict().items()}
    task = [value, 0.2] if where == 'task' else [1.0, 0.2]
    grad = [[value, -0.4]] if where == 'constraint' else [[-0.6, -0.4]]
    bad = constraint(grad, [0.01])
    assert torch.equal(move(step, ratio.tolist(), task, bad), ratio)
    for name, tensor in step.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not torch.equal(move(step, ratio.tolist(), [1.0, 0.2], good), ratio)


class Problem:
    """Widths with squared costs; log r = log Σ s_u (1 − a_u)."""

    share = torch.tensor([0.6, 0.3, 0.1])
    worth = torch.tensor([0.2, 0.4, 0.4])

    def run(self, step, steps, target=0.5, ratio=None):
        """Ratios after a search whose target falls in its first half."""
        ratio = torch.zeros(3) if ratio is None else ratio
        for index in range(steps):
            left = (self.share * (1 - ratio)).sum()
            now = target ** min(2 * index / steps, 1.0)
            bound = Constraint(
                -(self.share / left)[None].double(),
                (left / now).log()[None].double(),
                torch.ones(1).double(),
            )
            task = self.worth * ratio
            limits = torch.zeros(3), torch.full((3,), 0.95)
            step.move_(ratio, task, bound, *limits)
        return ratio


def test_the_target_is_met_and_all_prices_are_equal_there():
    problem, step = Problem(), StructureStep(3)
    step.set_length(1000)
    ratio = problem.run(step, 1000)
    assert float((problem.share * (1 - ratio)).sum()) == pytest.approx(
        0.5, rel=5e-3
    )
    # Equal w a / s at Σ s a = 1 / 2: the best structure of that size.
    best = problem.share / problem.worth
    best = best * 0.5 / (problem.share * best).sum()
    expected = best.clamp(max=0.95)
    rest = 0.5 - 0.95 * 0.6
    if best[0] > 0.95:
        best[1:] *= rest / (problem.share[1:] * best[1:]).sum()
        expected = best.clamp(0, 0.95)
    torch.testing.assert_close(ratio, expected, rtol=0, atol=0.05)
    assert (step.prices() >= 0).all()


@pytest.mark.parametrize('steps', [6, 10, 30, 400])
@pytest.mark.parametrize('target', [0.5, 0.25])
def test_short_searches_reach_their_target(steps, target):
    problem, step = Problem(), StructureStep(3)
    step.set_length(steps)
    ratio = problem.run(step, steps, target)
    left = float((problem.share * (1 - ratio)).sum())
    assert left == pytest.approx(target, rel=5e-3)


def test_what_is_held_keeps_its_price():
    problem, step = Problem(), StructureStep(3)
    ratio = problem.run(step, 20)
    before = step.prices()
    limits = ratio.clone(), torch.full((3,), 0.95)
    limits[1][0] = ratio[0]
    bound = constraint([[0.0, -0.4, -0.4]], [0.01])
    step.move_(ratio, torch.tensor([0.0, 0.3, 0.1]), bound, *limits)
    after = step.prices()
    assert after[0] == before[0] and (after[1:] != before[1:]).all()


def test_without_a_target_only_the_task_moves():
    step = StructureStep(2, 'plain', lr=0.1)
    bound = constraint([[-0.6, -0.4]], [-math.inf])
    found = move(step, [0.4, 0.4], [1.0, 0.0], bound)
    torch.testing.assert_close(found, torch.tensor([0.3, 0.4]))


@ALL
def test_the_state_resumes_to_the_bit(rule):
    problem, whole = Problem(), StructureStep(3, rule)
    whole.set_length(100)
    ratio = problem.run(whole, 20)
    other = StructureStep(3, rule)
    other.set_length(100)
    other.load_state_dict(whole.state_dict())
    copied = ratio.clone()
    expected = problem.run(whole, 20, ratio=ratio)
    assert torch.equal(problem.run(other, 20, ratio=copied), expected)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_several_targets_are_met_together():
    """To first order, with shares of which none is the other's."""
    step = StructureStep(2, 'price', lr=1e-6)
    grad = torch.tensor([[-0.8, -0.2], [-0.3, -0.7]])
    bound = constraint(grad.tolist(), [0.004, 0.003])
    found = move(step, [0.4, 0.4], [0.5, 0.5], bound)
    left = torch.tensor([0.004, 0.003]) + grad @ (found - 0.4)
    assert left.max() < 1e-4  # none is missed …
    assert left.max() > -1e-4  # … and one is used up


@pytest.mark.parametrize(
    'kwargs, key',
    [
        (dict(rule='fame'), 'rule'),
        *[(dict(lr=lr), 'lr') for lr in (0, -1.0, '1', math.nan, math.inf)],
        *[(dict(average=a), 'average') for a in (1, -0.1, 'x', True)],
    ],
)
def test_bad_settings(kwargs, key):
    with pytest.raises(ValueError, match=key):
        StructureStep(2, **kwargs)


def test_the_rate_follows_the_length_unless_it_is_given():
    short, long = StructureStep(2), StructureStep(2)
    short.set_length(300), long.set_length(3000)
    assert short.lr > long.lr > 0
    given = StructureStep(2, lr=0.3)
    given.set_length(3000)
    assert given.lr == 0.3
    assert "rule='price'" in repr(given) and '0.3' in repr(given)
