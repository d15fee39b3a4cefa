"""What a search reports while it runs."""

from typing import Mapping

from mmengine.runner import Runner

from dms_mmrazor.core import Phase
from dms_mmrazor.core.durations import PhaseLengths
from dms_mmrazor.engine.advice import advice_iteration, advise, too_coarse
from dms_mmrazor.engine.loss_history import mean_losses, recorded_histories
from dms_mmrazor.engine.search_log import describe_progress, structure_scalars
from dms_mmrazor.engine.step_checks import StepChecks
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


def give_advice(
    runner: Runner, weights: Mapping[str, float], lengths: PhaseLengths
) -> None:
    """Once in a search: say what to turn, if anything.

    Args:
        runner (Runner): Trains the search; its iteration is over.
        weights (Mapping[str, float]): Weights λ_r of the constrained
            resources.
        lengths (PhaseLengths): Phases of the search.
    """
    moment = advice_iteration(lengths.warmup, lengths.decay)
    if runner.iter + 1 != moment:
        return
    window = moment - int(lengths.warmup)
    histories = recorded_histories(runner, list(weights), window)
    checks = StepChecks(runner, weights)
    for history in histories:
        others = [other for other in histories if other is not history]
        told = history.kind not in checks.untold()
        for line in advise(history, others, told):
            runner.logger.warning(f'Advice after {moment} iterations: {line}')
        if too_coarse(history, others):
            checks.note(history.kind, told=True)


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
