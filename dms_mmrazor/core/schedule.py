"""Schedules as stateless functions of the progress of a search."""

import math
from typing import NamedTuple

__all__ = ['Phase', 'phase_at', 'scheduled_target']

SHAPES = ('exponential', 'linear', 'cosine', 'constant')
"""Shapes that :func:`scheduled_target` knows."""


class Phase(NamedTuple):
    """Where a search stands.

    Attributes:
        name (str): 'warmup' (the supernet trains, nothing is pruned),
            'decay' (the target falls to its final value), 'settle' (it
            stays at a milestone on its way) or 'refine' (it is reached;
            widths are searched with depth held).
        progress (float): Progress of the decay in [0, 1]: 0 before it, 1
            after it.
    """

    name: str
    progress: float


def scheduled_target(
    progress: float, start: float, final: float, shape: str = 'exponential'
) -> float:
    """The resource to aim at now (Eq. 10): ``r_S * (r_T / r_S)^p``.

    Args:
        progress (float): Progress p of the decay in [0, 1].
        start (float): Resource r_S of the supernet, > 0, in any unit.
        final (float): Final target r_T, > 0, in the same unit.
        shape (str): 'exponential' (Eq. 10), 'linear', 'cosine' or
            'constant' (``final`` at once). Defaults to 'exponential'.

    Returns:
        float: The target: exactly ``start`` at progress 0 (unless
        constant) and exactly ``final`` at progress 1.

    Raises:
        ValueError: If an argument is outside its range.
    """
    _check_progress(progress)
    for name, value in (('start', start), ('final', final)):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(
                f'{name} must be positive and finite, but got {value}.'
            )
    if shape == 'exponential':
        return start ** (1 - progress) * final**progress
    if shape == 'linear':
        return start * (1 - progress) + final * progress
    if shape == 'cosine':
        share = (1 - math.cos(math.pi * progress)) / 2
        return start * (1 - share) + final * share
    if shape == 'constant':
        return final
    raise ValueError(f'shape must be one of {SHAPES}, but got {shape!r}.')


def phase_at(
    progress: float,
    warmup: float = 0.0,
    decay: float = 0.8,
    total: float = 1.0,
) -> Phase:
    """The phase of a search (appendix A.1.2).

    After the decay, the rest of the search refines the widths with depth
    held, since the resource fluctuates strongly with depth.

    Args:
        progress (float): Progress of the whole search in [0, total].
        warmup (float): Part of the search before the decay, >= 0.
            Defaults to 0.0.
        decay (float): Part of the search in which the target decays, > 0.
            Defaults to 0.8.
        total (float): Length of the search: 1 if the others are portions
            of it, its iterations if they are iterations. Defaults to 1.0.

    Returns:
        Phase: The phase and the progress of the decay. Without a refining
        phase (``warmup + decay == total``) the search ends in 'decay' with
        progress 1.

    Raises:
        ValueError: If ``progress`` is outside [0, total] or the parts do
            not fit into the search.
    """
    _check_progress(progress, total)
    # Portions such as 0.3 + 0.7 may exceed 1 by a rounding error.
    slack = 1e-9 * total
    if not (warmup >= 0 and decay > 0 and warmup + decay <= total + slack):
        raise ValueError(
            f'warmup >= 0, decay > 0 and warmup + decay <= {total:g} '
            f'must hold, but got warmup={warmup} and '
            f'decay={decay}.'
        )
    if progress < warmup:
        return Phase('warmup', 0.0)
    decayed = min((progress - warmup) / decay, 1.0)
    refines = warmup + decay < total - slack
    if refines and progress >= warmup + decay:
        return Phase('refine', 1.0)
    return Phase('decay', decayed)


def _check_progress(progress: float, total: float = 1.0) -> None:
    if not 0 <= progress <= total:
        raise ValueError(
            f'progress must be in [0, {total:g}], but got {progress}; '
            'divide the iteration by their total number.'
        )
