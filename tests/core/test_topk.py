import math
from fractions import Fraction

import pytest
import torch

from dms_mmrazor.core import (
    differentiable_topk,
    hard_topk,
    normalize_importance,
)


def round_half_up(number: Fraction) -> int:
    return math.floor(number + Fraction(1, 2))


def importances(count: int):
    generator = torch.Generator().manual_seed(count)
    yield torch.zeros(count)
    yield torch.randn(count, generator=generator)
    yield torch.randint(0, 3, (count,), generator=generator).float()


@pytest.mark.parametrize('count', range(1, 65))
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_number_of_masks(count, dtype):
    # All halves (the borders), all whole numbers, both ends, some others.
    ratios = {Fraction(i, 2 * count) for i in range(2 * count + 1)}
    ratios |= {Fraction(i, 13) for i in range(14)}
    for importance in importances(count):
        importance = importance.to(dtype)
        for ratio in ratios:
            expected = max(1, round_half_up((1 - ratio) * count))
            soft = differentiable_topk(importance, float(ratio))
            hard = hard_topk(importance, float(ratio))
            assert int((soft >= 0.5).sum()) == expected
            assert torch.equal(hard, soft >= 0.5)


@pytest.mark.parametrize('count', [1, 2, 7, 64])
def test_kept_elements_are_the_most_important(count):
    for importance in importances(count):
        hard = hard_topk(importance, 0.4)
        if not hard.all():
            assert importance[hard].min() >= importance[~hard].max()


def test_ties_keep_a_prefix():
    assert hard_topk(torch.zeros(10), 0.7).tolist() == [True] * 3 + [False] * 7


def test_normalized_importance_is_even():
    values = torch.tensor([1e-30, 5.0, -1e30, 5.0])
    expected = torch.tensor([3.0, 7.0, 1.0, 5.0]) / 8
    torch.testing.assert_close(normalize_importance(values), expected)


@pytest.mark.parametrize(
    'dtype', [torch.float16, torch.float32, torch.float64]
)
def test_dtype_is_kept(dtype):
    importance = torch.rand(5).to(dtype)
    assert normalize_importance(importance).dtype == dtype
    assert differentiable_topk(importance, 0.5).dtype == dtype


def test_values_that_are_not_finite_are_ranked():
    values = torch.tensor([0.0, float('inf'), -float('inf')])
    assert normalize_importance(values).argsort().tolist() == [2, 0, 1]


@pytest.mark.parametrize('temperature', [None, 3.0, 40.0])
def test_gradient(temperature):
    importance = torch.rand(10, dtype=torch.float64)
    ratio = torch.tensor(0.43, dtype=torch.float64, requires_grad=True)

    def operator(value):
        return differentiable_topk(importance, value, temperature)

    assert torch.autograd.gradcheck(operator, (ratio,))
    mask = operator(ratio)
    weight = torch.rand(10, dtype=torch.float64)
    (grad,) = torch.autograd.grad((weight * mask).sum(), ratio)
    scale = 10 if temperature is None else temperature
    expected = (weight * -scale * mask * (1 - mask)).sum()
    torch.testing.assert_close(grad, expected)


def test_gradient_at_and_beyond_the_limits():
    for value, flows in (
        (0.0, True),
        (0.75, True),
        (-0.1, False),
        (1.0, False),
    ):
        ratio = torch.tensor(value, requires_grad=True)
        differentiable_topk(torch.rand(4), ratio).sum().backward()
        assert bool(ratio.grad != 0) is flows


def test_importance_gets_no_gradient():
    importance = torch.rand(4, requires_grad=True)
    assert not differentiable_topk(importance, 0.5).requires_grad


@pytest.mark.parametrize(
    'call',
    [
        lambda: normalize_importance(torch.zeros(2, 2)),
        lambda: normalize_importance(torch.zeros(0)),
        lambda: normalize_importance(torch.zeros(3, dtype=torch.long)),
        lambda: differentiable_topk(torch.zeros(3), torch.zeros(3)),
        lambda: differentiable_topk(torch.zeros(3), 0.5, temperature=0.0),
        lambda: hard_topk(torch.zeros(3), torch.zeros(2)),
    ],
)
def test_errors(call):
    with pytest.raises(ValueError):
        call()
