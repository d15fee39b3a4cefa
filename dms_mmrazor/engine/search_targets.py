"""Targets of a search: the final ones, and those of an iteration."""

from mmengine.runner import IterBasedTrainLoop, Runner

from dms_mmrazor.core.durations import Duration, PhaseLengths, phase_lengths
from dms_mmrazor.errors import DMSError


def lengths_of(
    runner: Runner, warmup: Duration, decay: Duration
) -> PhaseLengths:
    """Phases of a runner's training in iterations.

    Raises:
        DMSError: If they do not fit into the training.
    """
    by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
    total = max(runner.max_iters, 1)
    per_epoch = total / max(runner.max_epochs, 1) if by_epoch else None
    try:
        return phase_lengths(warmup, decay, total, per_epoch)
    except ValueError as error:
        raise DMSError(f'ResourceHook: {error}') from None


def structure_steps(runner: Runner) -> int:
    """Steps that the structure of a runner's training takes."""
    counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    return max(-(-runner.max_iters // counts), 1)
