"""What a search reports while it runs."""

from typing import Mapping

from mmengine.runner import Runner

from dms_mmrazor.core import Phase
from dms_mmrazor.core.durations import PhaseLengths
from dms_mmrazor.engine.loss_history import mean_losses
from dms_mmrazor.engine.search_log import describe_progress, structure_scalars
from dms_mmrazor.models.mutators import DMSMutator


def report_progress(
    runner: Runner,
    mutator: DMSMutator,
    phase: Phase,
    targets: Mapping[str, float],
    interval: int,
) -> None:
    """Write the line of an interval, and the structure's scalars.

    Args:
        runner (Runner): Trains the search.
        mutator (DMSMutator): Of the search.
        phase (Phase): Of this iteration.
        targets (Mapping[str, float]): Of this iteration.
        interval (int): Iterations since the last line.
    """
    losses = mean_losses(runner, list(targets), interval)
    runner.logger.info(describe_progress(mutator, phase, targets, losses))
    scalars = structure_scalars(mutator)
    runner.visualizer.add_scalars(scalars, step=runner.iter + 1)


def hold_depth(
    runner: Runner, mutator: DMSMutator, lengths: PhaseLengths
) -> None:
    """Freeze the depths and say at what, and what the change will be.

    Args:
        runner (Runner): At the beginning of the refining phase.
        mutator (DMSMutator): Of the search.
        lengths (PhaseLengths): Phases of the search.
    """
    kinds = list(mutator.table.full)
    before = {kind: mutator.resource(kind, hard=False) for kind in kinds}
    mutator.masks.hold_depth()
    depths = ', '.join(
        f'{stage.name} {stage.current_choice} of {stage.num_blocks}'
        for stage in mutator.depth_units
    )
    changes = ', '.join(
        f'{kind} {before[kind] / whole:.3f} → '
        f'{mutator.resource(kind, hard=False) / whole:.3f}'
        for kind, whole in mutator.table.full.items()
    )
    if depths:
        first = runner.iter + 1
        last = runner.iter + lengths.iterations_to_hold()
        runner.logger.info(
            f'The depths are held from iteration {first} on ({depths}). '
            f'Until iteration {last} blocks that are kept in part become '
            f"whole or none: of the supernet's {changes}, but the widths "
            'follow.'
        )
