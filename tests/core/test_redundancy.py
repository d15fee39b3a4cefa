import math

import pytest
import torch

from dms_mmrazor.core.redundancy import (
    RIDGE,
    covariance_of,
    remaining_variance,
    sums_of,
    unexplained_variance,
)


def features(rows=4000, seed=0):
    """Eight channels of which the last two follow from others."""
    torch.manual_seed(seed)
    free = torch.randn(rows, 6, dtype=torch.double)
    sixth = free[:, :2].sum(1, keepdim=True) / 2**0.5
    noisy = free[:, 2:3] + 0.5 * torch.randn(rows, 1, dtype=torch.double)
    return torch.cat([free, sixth, noisy], 1)


def covariance(x):
    return covariance_of(*sums_of(x, x.shape[1], 1))


def test_what_a_regression_leaves():
    """Against the regression itself, of each channel on all others."""
    x = features()
    found = remaining_variance(covariance(x), torch.tensor(len(x)))[0]
    x = x - x.mean(0)
    ridge = RIDGE * x.var(0, unbiased=False).mean()
    for channel in range(8):
        others = [c for c in range(8) if c != channel]
        a, b = x[:, others], x[:, channel]
        moments = a.T @ a / len(x) + ridge * torch.eye(7).double()
        weights = torch.linalg.solve(moments, a.T @ b / len(x))
        variance = b.square().mean() + ridge
        left = variance - weights @ (a.T @ b / len(x))
        assert found[channel] == pytest.approx(float(left / variance), 5e-3)
    assert found[3] > 0.95 and found[5] > 0.95  # nothing follows from them
    assert found[6] < 0.05 and 0.1 < found[7] < 0.3


def test_a_mask_hides_who_could_replace():
    x = features()
    mask = torch.ones(1, 8).double()
    mask[0, 0] = 0
    masked = covariance_of(*sums_of(x, 8, 1), mask)
    found = remaining_variance(masked, torch.tensor(len(x)))[0]
    assert found[6] > 0.3
    assert found[0] == 1  # what is not there is not replaced


def test_channels_that_go_together_do_not_replace_each_other():
    """A pair of equal channels is lost as a whole."""
    x = torch.randn(3000, 2).double().repeat_interleave(2, 1)
    rows = torch.tensor(len(x))
    alone = remaining_variance(covariance(x), rows)
    pairs = remaining_variance(covariance(x), rows, group=2)
    assert (alone < 0.05).all() and (pairs > 0.9).all()


def test_noise_of_few_samples_explains_nothing():
    """A regression on 20 channels explains 20 of 60 samples of noise."""
    torch.manual_seed(0)
    found = [
        remaining_variance(covariance(torch.randn(60, 20)), torch.tensor(60))
        for _ in range(20)
    ]
    assert torch.stack(found).mean() > 0.9
    few = remaining_variance(covariance(torch.randn(30, 20)), torch.tensor(30))
    assert few.isnan().all()
    nothing = torch.zeros(1, 20, 20)
    assert remaining_variance(nothing, torch.tensor(0)).isnan().all()


def test_wide_layers_are_cut_into_blocks():
    x = torch.randn(500, 10)
    products, totals, rows = sums_of(x, 4, 3)
    assert products.shape == (3, 4, 4) and totals.shape == (3, 4)
    assert rows == 500
    torch.testing.assert_close(products[1], x[:, 4:8].T @ x[:, 4:8])
    assert (products[2, 2:] == 0).all()
    x[3, 3] = torch.inf
    assert all((part == 0).all() for part in sums_of(x, 4, 3))


def test_what_a_block_adds_beside_its_input():
    """Half linear in the input, half not."""
    torch.manual_seed(0)
    x = torch.randn(4000, 3).double()
    linear, other = x @ torch.randn(3, 3).double(), torch.randn(4000, 3)
    other = other * (linear.var() / other.var()).sqrt()
    rows = torch.tensor(len(x))

    def left(change):
        found = covariance(torch.cat([x, change.double()], 1))
        return float(unexplained_variance(found, rows))

    assert left(linear) < 0.03 and left(other) > 0.97
    assert left(linear + other) == pytest.approx(0.5, abs=0.04)
    assert left(0.01 * (linear + other)) == pytest.approx(0.5, abs=0.04)
    assert math.isnan(left(0 * other))
    few = covariance(torch.cat([x, linear], 1)[:5])
    assert unexplained_variance(few, torch.tensor(5)).isnan()
