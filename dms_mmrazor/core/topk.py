"""The differentiable top-k operator for one structural hyperparameter.

This is section 3.1 of the paper in three short functions, the reference for
the batched :class:`~dms_mmrazor.core.FlatTopk`. One polarity everywhere:
mask 1 = keep, larger importance = keep.
"""

from typing import Optional, Union

import torch
from torch import Tensor

__all__ = ['differentiable_topk', 'hard_topk', 'normalize_importance']


def normalize_importance(importance: Tensor) -> Tensor:
    """Spread importances evenly over (0, 1) whatever their distribution.

    Eq. 2 of the paper counts the less important elements. Centered ranks,
    ``(rank + 1/2) / N`` with rank 0 for the least important element, count
    half of the element itself too, which makes the number of masks >= 1/2
    equal to the paper's ``round((1 - a) * N)``.

    Args:
        importance (Tensor): Floating-point importances, shape [N], N >= 1;
            larger = more important. Any values: among equal ones the
            earlier index counts as more important, so that ties keep a
            prefix and never keep or drop a whole block. A NaN counts as
            the largest value.

    Returns:
        Tensor: Normalized importances, shape [N], dtype of ``importance``,
        without gradient (importance is never trained, section 3.1.3).

    Raises:
        ValueError: If ``importance`` is not a 1-D floating-point tensor
            with at least one element.
    """
    return _centered_ranks(importance).to(importance.dtype)


def differentiable_topk(
    importance: Tensor,
    pruning_ratio: Union[Tensor, float],
    temperature: Optional[float] = None,
) -> Tensor:
    """Soft mask of the elements that a pruning ratio keeps (Eq. 3).

    ``m_i = sigmoid(temperature * (c'_i - a))`` with the normalized
    importance c' and the pruning ratio a; its gradient is
    ``dm_i/da = -temperature * m_i * (1 - m_i)``.

    Args:
        importance (Tensor): Floating-point importances, shape [N].
        pruning_ratio (Tensor | float): The portion of elements to prune,
            the operator's only learnable parameter; one value. Limited to
            [0, 1 - 1/N] (appendix A.1.1), so that at least one mask is
            >= 1/2; beyond the limits its gradient is zero.
        temperature (float, optional): How closely the soft mask approaches
            a hard one, > 0. The paper takes N for widths and 4N for few
            elements (blocks, heads). Defaults to None, which means N.

    Returns:
        Tensor: Soft mask in (0, 1), shape [N], dtype of ``importance``,
        differentiable in ``pruning_ratio``.

    Raises:
        ValueError: If ``importance`` is not a 1-D floating-point tensor
            with at least one element, ``pruning_ratio`` is not one value
            or ``temperature`` is not positive.
    """
    mask = _soft_mask(importance, pruning_ratio, temperature)
    return mask.to(importance.dtype)


@torch.no_grad()
def hard_topk(
    importance: Tensor, pruning_ratio: Union[Tensor, float]
) -> Tensor:
    """Mask of the elements kept after the search: soft mask >= 1/2.

    Args:
        importance (Tensor): Floating-point importances, shape [N].
        pruning_ratio (Tensor | float): The portion of elements to prune,
            one value, limited to [0, 1 - 1/N].

    Returns:
        Tensor: Boolean mask, shape [N]. It keeps ``(1 - a) * N`` elements
        rounded half up, never below 1, and always the most important ones.

    Raises:
        ValueError: As :func:`differentiable_topk`.
    """
    return _soft_mask(importance, pruning_ratio, None) >= 0.5


def _soft_mask(
    importance: Tensor,
    pruning_ratio: Union[Tensor, float],
    temperature: Optional[float],
) -> Tensor:
    """Eq. 3 in at least float32."""
    normalized = _centered_ranks(importance)
    ratio = torch.as_tensor(
        pruning_ratio, dtype=normalized.dtype, device=normalized.device
    )
    if ratio.numel() != 1:
        raise ValueError(
            'pruning_ratio must be one value, but got shape '
            f'{list(ratio.shape)}; use FlatTopk for many '
            'operators at once.'
        )
    count = normalized.numel()
    temperature = count if temperature is None else temperature
    if not temperature > 0:
        raise ValueError(
            f'temperature must be positive, but got '
            f'{temperature}; leave it None for the number of '
            'elements.'
        )
    ratio = ratio.reshape(()).clamp(0, 1 - 1 / count)
    return torch.sigmoid(temperature * (normalized - ratio))


@torch.no_grad()
def _centered_ranks(importance: Tensor) -> Tensor:
    """Eq. 2 in at least float32: half precision cannot count far."""
    if importance.dim() != 1 or importance.numel() == 0:
        raise ValueError(
            'importance must have shape [N] with N >= 1, but '
            f'got {list(importance.shape)}.'
        )
    if not importance.is_floating_point():
        raise ValueError(
            'importance must be floating point, but got '
            f'{importance.dtype}; convert it with .float().'
        )
    count = importance.numel()
    # Descending and stable: the earlier of two equal elements comes first.
    order = torch.sort(importance, descending=True, stable=True).indices
    rank = torch.empty_like(order)
    rank[order] = torch.arange(count - 1, -1, -1, device=order.device)
    dtype = torch.promote_types(importance.dtype, torch.float32)
    return (rank.to(dtype) + 0.5) / count
