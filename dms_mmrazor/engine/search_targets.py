"""Targets of a search: the final ones, and those of an iteration."""

from typing import Dict, Mapping

from mmengine.runner import IterBasedTrainLoop, Runner

from dms_mmrazor.core import Phase, scheduled_target
from dms_mmrazor.core.durations import Duration, PhaseLengths, phase_lengths
from dms_mmrazor.engine.resource_target import (
    Target,
    check_reachable,
    parse_target,
)
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator


def resolve_targets(
    mutator: DMSMutator, wanted: Mapping[str, Target], divisor: int
) -> Dict[str, float]:
    """Final targets in absolute numbers.

    Args:
        mutator (DMSMutator): Of a prepared supernet.
        wanted (Mapping[str, Target]): As the config has them, by kind.
        divisor (int): Of the exported widths.

    Raises:
        DMSError: If one cannot be read or reached.
    """
    targets: Dict[str, float] = {}
    for kind, value in wanted.items():
        if kind not in mutator.table.full:
            raise DMSError(
                f'ResourceHook: unknown resource {kind!r}; known: '
                f'{list(mutator.table.full)}.'
            )
        key = f'ResourceHook.target ({kind})'
        whole = mutator.table.full[kind]
        targets[kind] = parse_target(value, whole, key, kind)
        smallest, largest = mutator.table.range(kind, divisor)
        check_reachable(kind, targets[kind], whole, smallest, key, largest)
    return targets


def targets_now(
    mutator: DMSMutator,
    targets: Mapping[str, float],
    phase: Phase,
    schedule: str,
) -> Dict[str, float]:
    """Targets of a moment; infinite in the warm-up.

    Args:
        mutator (DMSMutator): Of a prepared supernet.
        targets (Mapping[str, float]): Final ones, absolute.
        phase (Phase): Of the moment.
        schedule (str): Shape, see :func:`scheduled_target`.
    """
    if phase.name == 'warmup':
        return dict.fromkeys(targets, float('inf'))
    full = mutator.table.full
    return {
        kind: scheduled_target(phase.progress, full[kind], final, schedule)
        for kind, final in targets.items()
    }


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
