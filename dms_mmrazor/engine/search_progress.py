"""What a search reports while it runs."""

from typing import Mapping

from mmengine.runner import Runner

from dms_mmrazor.core import Phase
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
