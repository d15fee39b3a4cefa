"""How important an element is: Eq. 4 of the paper and Table 6's others.

The functions score one step; :meth:`FlatTopk.update_importance_` averages
the scores over steps. Larger = more important = kept.
"""

from types import MappingProxyType
from typing import Callable, Mapping, Tuple

import torch
from torch import Tensor

__all__ = [
    'METRICS',
    'SIGNED_METRICS',
    'STATIC_METRICS',
    'check_metric',
    'fisher',
    'gradient',
    'index_importance',
    'l1_importance',
    'snip',
    'taylor',
]


def taylor(mask: Tensor, grad: Tensor) -> Tensor:
    """First-order Taylor importance ``(m * dL/dm)^2`` (Eq. 4).

    Args:
        mask (Tensor): Soft masks, any shape.
        grad (Tensor): Gradient of the task loss alone with respect to the
            masks, same shape.

    Returns:
        Tensor: Scores, same shape.
    """
    return (mask * grad).square()


def snip(mask: Tensor, grad: Tensor) -> Tensor:
    """Connection sensitivity ``|m * dL/dm|`` (Table 6, SNIP).

    Args:
        mask (Tensor): Soft masks, any shape.
        grad (Tensor): Gradient of the task loss, same shape.

    Returns:
        Tensor: Scores, same shape.
    """
    return (mask * grad).abs()


def fisher(mask: Tensor, grad: Tensor) -> Tensor:
    """Diagonal of the empirical Fisher information ``(dL/dm)^2`` (Table 6).

    Args:
        mask (Tensor): Soft masks; unused, all metrics share one signature.
        grad (Tensor): Gradient of the task loss, any shape.

    Returns:
        Tensor: Scores, same shape as ``grad``.
    """
    return grad.square()


def gradient(mask: Tensor, grad: Tensor) -> Tensor:
    """What the loss falls by for more of an element, ``-dL/dm``.

    Signed: an element that does harm is below one that does nothing, and one
    that is masked away can come back. It says something of weights that stay
    what they are (``structure_only``); where they train, ``m * dL/dm`` only
    tells how fast the weights behind the mask want to grow.

    Args:
        mask (Tensor): Soft masks; unused, all metrics share one signature.
        grad (Tensor): Gradient of the task loss, any shape.

    Returns:
        Tensor: Scores, same shape as ``grad``.
    """
    return -grad


METRICS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        'taylor': taylor,
        'snip': snip,
        'fisher': fisher,
        'gradient': gradient,
    }
)
"""Metrics that score each step from masks and their gradients."""

SIGNED_METRICS: Tuple[str, ...] = ('gradient',)
"""Those of :data:`METRICS` that are no losses of removing an element."""

STATIC_METRICS: Tuple[str, ...] = ('index', 'l1')
"""Metrics that are set once, before the search, and never updated."""


def check_metric(metric: str) -> None:
    """Check the name of a metric.

    Args:
        metric (str): The name.

    Raises:
        ValueError: If there is no such metric.
    """
    known = (*METRICS, *STATIC_METRICS)
    if metric not in known:
        raise ValueError(f'metric must be one of {known}, but got {metric!r}.')


def index_importance(n: int) -> Tensor:
    """Importance by position, the earlier the more important (Table 6).

    Args:
        n (int): Number of elements, >= 1.

    Returns:
        Tensor: Scores n/n, (n-1)/n, ..., 1/n, shape [n].

    Raises:
        ValueError: If ``n`` is below 1.
    """
    if n < 1:
        raise ValueError(f'n must be at least 1, but got {n}.')
    return torch.arange(n, 0, -1, dtype=torch.get_default_dtype()) / n


@torch.no_grad()
def l1_importance(weight: Tensor, dim: int) -> Tensor:
    """L1 norm of the weights that belong to each channel.

    Args:
        weight (Tensor): Weight of a layer, any shape.
        dim (int): Dimension of the channels: 0 for the outputs and 1 for
            the inputs of a convolutional or linear layer.

    Returns:
        Tensor: Scores, shape [weight.shape[dim]].

    Raises:
        ValueError: If ``weight`` has no dimension ``dim``.
    """
    if not -weight.dim() <= dim < weight.dim():
        raise ValueError(
            f'weight of shape {list(weight.shape)} has no dimension {dim}.'
        )
    channels = weight.shape[dim]
    return weight.abs().transpose(0, dim).reshape(channels, -1).sum(1)
