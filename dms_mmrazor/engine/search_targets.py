"""Targets of a search: the final ones, and those of an iteration."""

from typing import Optional, Tuple

from mmengine.runner import IterBasedTrainLoop, Runner

from dms_mmrazor.core.durations import (
    Duration,
    PhaseLengths,
    iterations_of,
    phase_lengths,
)
from dms_mmrazor.errors import DMSError


def lengths_of(
    runner: Runner, warmup: Duration, decay: Duration
) -> PhaseLengths:
    """Phases of a runner's training in iterations.

    Raises:
        DMSError: If they do not fit into the training.
    """
    try:
        return phase_lengths(warmup, decay, *_extent(runner))
    except ValueError as error:
        raise DMSError(f'ResourceHook: {error}') from None


def length_of(runner: Runner, key: str, value: Duration) -> float:
    """A part of a runner's training in iterations.

    Args:
        runner (Runner): Of the search.
        key (str): Name of the setting, for messages.
        value (int | float | str): See :func:`phase_lengths`.

    Raises:
        DMSError: If it cannot be read.
    """
    try:
        return iterations_of(key, value, *_extent(runner))
    except ValueError as error:
        raise DMSError(f'ResourceHook: {error}') from None


def _extent(runner: Runner) -> Tuple[int, Optional[float]]:
    """Iterations of a training and of an epoch, if it has epochs."""
    by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
    total = max(runner.max_iters, 1)
    return total, total / max(runner.max_epochs, 1) if by_epoch else None


def structure_steps(runner: Runner) -> int:
    """Steps that the structure of a runner's training takes."""
    counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    return max(-(-runner.max_iters // counts), 1)
