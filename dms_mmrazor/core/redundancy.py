"""How much of a channel the others could give: what they cannot, remains.

The layers that read a channel are linear in it. Where it is removed, their
weights can move to the other channels and restore of it what is a linear
function of those. What no function of them gives is lost: the variance of the
channel that a regression on the others leaves. By the inverse P of the
covariance matrix C of all channels that is ``1 / P_cc``, out of ``C_cc``.

A residual block adds f(x) to x. Without it, layers behind restore of f(x) what
is linear in x; the rest of its variance is what the block is there for.
"""

import math
from typing import Optional, Tuple

import torch
from torch import Tensor

__all__ = [
    'covariance_of',
    'remaining_variance',
    'sums_of',
    'unexplained_variance',
]

RIDGE = 1e-2
"""Added to the covariances, relative to the mean variance: a regression must
not rest on what is too small to be told from noise."""


def remaining_variance(
    covariance: Tensor, rows: Tensor, group: int = 1
) -> Tensor:
    """Portion of the variance that a regression on the others leaves.

    Corrected for the number of samples: a regression on D channels explains
    D of n samples even of noise.

    Args:
        covariance (Tensor): Of k channels, any number B of times, shape
            [B, k, k]; channels that are masked are 0.
        rows (Tensor): Samples n that it was taken of, 0-dim.
        group (int): So many channels in a row are removed together, and
            regressed on those of other groups. Divides k. Defaults to 1.

    Returns:
        Tensor: In (0, 1], NaN where too few samples say nothing, shape
        [B, k].
    """
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    ridge = RIDGE * _mean_of_some(variance) + torch.finfo(variance.dtype).tiny
    eye = torch.eye(variance.shape[-1]).to(variance)
    inverse = _inverse(covariance + ridge[:, None, None] * eye)
    diagonal = inverse.diagonal(dim1=-2, dim2=-1)
    left, total = 1 / diagonal, variance + ridge[:, None]
    if group > 1:
        own = _inverse(_diagonal_blocks(inverse, group))
        left = own.diagonal(dim1=-2, dim2=-1).flatten(1)
        left, total = (_sum_of_group(v, group) for v in (left, total))
    # Degrees of freedom of the regression: a ridge takes some of them away.
    used = (1 - ridge[:, None] * diagonal).sum(-1, keepdim=True)
    return _corrected(left / total, rows, used)


def unexplained_variance(covariance: Tensor, rows: Tensor) -> Tensor:
    """Portion of the variance of some channels that others do not explain.

    Args:
        covariance (Tensor): Of 2k channels, of which the first k explain
            the others, any number B of times, shape [B, 2k, 2k].
        rows (Tensor): Samples n that it was taken of, 0-dim.

    Returns:
        Tensor: In (0, 1], over all B · k explained channels, 0-dim; NaN
        where too few samples say nothing, or nothing varies.
    """
    number = covariance.shape[-1] // 2
    known = covariance[:, :number, :number]
    shared = covariance[:, :number, number:]
    total = covariance.diagonal(dim1=-2, dim2=-1)[:, number:].sum()
    ridge = RIDGE * _mean_of_some(known.diagonal(dim1=-2, dim2=-1))
    ridge = (ridge + torch.finfo(known.dtype).tiny)[:, None, None]
    inverse = _inverse(known + ridge * torch.eye(number).to(known))
    explained = (shared * (inverse @ shared)).sum()
    diagonal = inverse.diagonal(dim1=-2, dim2=-1)
    used = (1 - ridge[:, 0] * diagonal).sum(-1).mean()
    left = (total - explained).clamp(min=0)
    portion = left / total.clamp(min=torch.finfo(total.dtype).tiny)
    portion = _corrected(portion, rows, used)
    return portion.masked_fill(total <= 0, math.nan)


def _corrected(portion: Tensor, rows: Tensor, used: Tensor) -> Tensor:
    """What a regression leaves that had so many parameters for n samples."""
    free = (rows - used).clamp(min=1)
    portion = (portion * rows / free).clamp(max=1)
    # With hardly more samples than parameters the correction is itself noise.
    known = (rows > 2 * used) & (rows > 0)
    return portion.masked_fill(~known, math.nan)


def _mean_of_some(variance: Tensor) -> Tensor:
    """Mean over the channels that vary at all, shape [B]."""
    number = (variance > 0).sum(-1).clamp(min=1)
    return variance.sum(-1) / number


def _sum_of_group(values: Tensor, size: int) -> Tensor:
    """For each of [B, k] the sum over its group."""
    sums = values.unflatten(-1, (-1, size)).sum(-1)
    return sums.repeat_interleave(size, dim=-1)


def _inverse(matrix: Tensor) -> Tensor:
    """Inverse of positive definite matrices, without synchronization."""
    factor, _ = torch.linalg.cholesky_ex(matrix)
    return torch.cholesky_inverse(factor)


def _diagonal_blocks(matrix: Tensor, size: int) -> Tensor:
    """[B, k, k] → [B, k / size, size, size], those on the diagonal."""
    blocks, number, _ = matrix.shape
    shape = (blocks, number // size, size, number // size, size)
    every = matrix.view(shape).diagonal(dim1=1, dim2=3)
    return every.permute(0, 3, 1, 2)


def sums_of(
    features: Tensor, size: int, blocks: int
) -> Tuple[Tensor, Tensor, Tensor]:
    """What covariances are made of.

    Args:
        features (Tensor): Samples of k channels, shape [n, k].
        size (int): Channels of a block; blocks · size >= k.
        blocks (int): Number B of blocks.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Sums of products [B, size, size] and
        of features [B, size], and n, all 0 if anything is not finite.
    """
    rows, number = features.shape
    fine = features.isfinite().all()
    features = torch.where(fine, features, torch.zeros_like(features))
    padded = torch.nn.functional.pad(features, (0, blocks * size - number))
    parts = padded.view(rows, blocks, size).transpose(0, 1)
    return parts.transpose(1, 2) @ parts, parts.sum(1), rows * fine


def covariance_of(
    products: Tensor, sums: Tensor, rows: Tensor, mask: Optional[Tensor] = None
) -> Tensor:
    """Covariances of masked channels, from what :func:`sums_of` gives.

    Args:
        products (Tensor): Shape [B, size, size].
        sums (Tensor): Shape [B, size].
        rows (Tensor): Number of samples, 0-dim.
        mask (Tensor, optional): Of the channels, shape [B, size]. Defaults
            to None, all are there.

    Returns:
        Tensor: Shape [B, size, size].
    """
    rows = rows.clamp(min=1)
    mean = sums / rows
    found = products / rows - mean[:, :, None] * mean[:, None, :]
    if mask is not None:
        found = found * mask[:, :, None] * mask[:, None, :]
    return found
