"""Latency of a layer as a smooth function of its widths (Eq. 9).

Appendix A.1.2: a layer costs l · f(a_in, a_out), with l the latency of the
unpruned layer and f fitted to the ratios of measured latencies. Here f is
bilinear in the kept ratios x = 1 - a_in and y = 1 - a_out,

    f = c_0 + c_x x + c_y y + c_xy x y,   all c >= 0,   f(x=1, y=1) = 1:

a part that no width changes, the traffic of reading the input and of writing
the output (with the norm and the activation behind the layer), and the
arithmetic. Without negative coefficients f never falls when more is kept,
which the final rounding needs; and as a sum of products it is one more table
for the resource model.
"""

import math
from itertools import combinations
from typing import NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

__all__ = [
    'LatencyFit',
    'fit_latency',
    'nonnegative_least_squares',
    'rank_correlation',
]


class LatencyFit(NamedTuple):
    """Latency of one kind of layer, and how well it was fitted.

    Attributes:
        full (float): Latency l of the unpruned layer, in the unit of the
            measured times.
        shares (tuple[float, ...]): c_0, c_x, c_y and c_xy of f, >= 0; their
            sum is 1.
        error (float): Mean relative error of the fit over the measured
            points.
        worst (float): Largest relative error.
    """

    full: float
    shares: Tuple[float, float, float, float]
    error: float
    worst: float

    def ratio(self, kept_in: float, kept_out: float) -> float:
        """f of Eq. 9.

        Args:
            kept_in (float): 1 - a_in, in [0, 1].
            kept_out (float): 1 - a_out, in [0, 1].
        """
        basis = (1.0, kept_in, kept_out, kept_in * kept_out)
        return sum(c * b for c, b in zip(self.shares, basis))


def fit_latency(
    kept_in: Sequence[float],
    kept_out: Sequence[float],
    times: Sequence[float],
    weights: Optional[Sequence[float]] = None,
) -> LatencyFit:
    """Fit l and f to latencies of a layer at several widths.

    Args:
        kept_in (Sequence[float]): 1 - a_in of each of the M points.
        kept_out (Sequence[float]): 1 - a_out of each point.
        times (Sequence[float]): Latency of each point, > 0.
        weights (Sequence[float], optional): Factors of the residuals, > 0.
            Defaults to None, ``1 / times``: relative errors count.

    Returns:
        LatencyFit: With non-negative coefficients, the least squares.

    Raises:
        ValueError: If there is no point, the lengths differ or a number is
            not valid.
    """
    columns = (kept_in, kept_out, times, weights or times)
    if not times or len({len(column) for column in columns}) != 1:
        raise ValueError(
            'kept_in, kept_out, times and weights must have the same '
            f'length, at least 1, but have {[len(c) for c in columns]}.'
        )
    x, y, t, w = (torch.tensor(c, dtype=torch.float64) for c in columns)
    # Relative errors count, or the slowest layers alone would be fitted.
    w = w if weights else 1 / t
    values = torch.stack([x, y, t, w])
    if not (torch.isfinite(values).all() and (t > 0).all() and (w > 0).all()):
        raise ValueError(
            'kept ratios must be finite, times and weights positive and '
            f'finite, but got times {list(times)[:8]} …'
        )
    basis = torch.stack([torch.ones_like(x), x, y, x * y], dim=1)
    found = nonnegative_least_squares(basis * w[:, None], t * w)
    error = (basis @ found - t).abs() / t
    full = float(found.sum())
    shares = [float(c) / full for c in found]
    return LatencyFit(
        full, tuple(shares), float(error.mean()), float(error.max())
    )


def nonnegative_least_squares(matrix: Tensor, target: Tensor) -> Tensor:
    """The x >= 0 with the smallest ``|matrix @ x - target|``.

    Exact and deterministic: the best of the solutions of all subsets of
    columns, which is cheap for the few columns of a latency. Among equally
    good ones the subset with the fewest and first columns.

    Args:
        matrix (Tensor): Shape [M, N], N small; columns may depend on each
            other.
        target (Tensor): Shape [M].

    Returns:
        Tensor: Shape [N], float64.
    """
    matrix, target = matrix.double(), target.double()
    columns = matrix.shape[1]
    best = torch.zeros(columns, dtype=torch.float64)
    smallest = float((target**2).sum())
    for number in range(1, columns + 1):
        for subset in combinations(range(columns), number):
            part = matrix[:, subset]
            solution = torch.linalg.lstsq(
                part, target[:, None], driver='gelsd'
            ).solution[:, 0]
            residual = float(((part @ solution - target) ** 2).sum())
            # With a margin: of equally good subsets the first one stays, on
            # every machine.
            better = residual < smallest * (1 - 1e-9) - 1e-18
            if bool((solution >= 0).all()) and better:
                smallest = residual
                best = torch.zeros_like(best)
                best[list(subset)] = solution
    return best


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation; ties share the mean of their ranks.

    Returns:
        float: In [-1, 1]; NaN if one of the sequences is constant.
    """
    a, b = (_ranks(values) for values in (first, second))
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / scale if scale else math.nan


def _ranks(values: Sequence[float]) -> Tensor:
    v = torch.tensor(values, dtype=torch.float64)
    below = (v[None, :] < v[:, None]).sum(1)
    equal = (v[None, :] == v[:, None]).sum(1)
    return below + (equal - 1) / 2
