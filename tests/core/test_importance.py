import pytest
import torch

from dms_mmrazor.core import (
    METRICS,
    SIGNED_METRICS,
    STATIC_METRICS,
    fisher,
    gradient,
    index_importance,
    l1_importance,
    snip,
    taylor,
)


def test_scores():
    mask, grad = torch.tensor([0.5, 1.0]), torch.tensor([4.0, -3.0])
    assert taylor(mask, grad).tolist() == [4.0, 9.0]
    assert snip(mask, grad).tolist() == [2.0, 3.0]
    assert fisher(mask, grad).tolist() == [16.0, 9.0]
    assert gradient(mask, grad).tolist() == [-4.0, 3.0]


def test_metrics_cannot_be_changed():
    assert set(METRICS) == {'taylor', 'snip', 'fisher', 'gradient'}
    assert set(SIGNED_METRICS) < set(METRICS)
    assert not set(METRICS) & set(STATIC_METRICS)
    with pytest.raises(TypeError):
        METRICS['taylor'] = snip


def test_index_importance_falls():
    scores = index_importance(5)
    assert (scores[:-1] > scores[1:]).all() and (scores > 0).all()
    with pytest.raises(ValueError):
        index_importance(0)


@pytest.mark.parametrize('shape', [(4, 3), (4, 3, 2, 2)])
@pytest.mark.parametrize('dim', [0, 1, -1])
def test_l1_importance(shape, dim):
    weight = torch.randn(shape)
    others = [d for d in range(len(shape)) if d != dim % len(shape)]
    expected = weight.abs().sum(others)
    torch.testing.assert_close(l1_importance(weight, dim), expected)
    with pytest.raises(ValueError, match='no dimension 4'):
        l1_importance(weight, 4)
