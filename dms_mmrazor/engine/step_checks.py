"""When steps of the resource loss are checked, and what was said of them."""

from logging import Logger
from typing import Dict, Mapping, Optional, Tuple

from mmengine.runner import Runner

from dms_mmrazor.core.durations import PhaseLengths
from dms_mmrazor.engine.overshoot import optimizer_lr, overshoot_warnings
from dms_mmrazor.models.mutators import DMSMutator

CHECKED = 'dms_step_checks'
"""Where the message hub, and so a checkpoint, has what was checked."""


class StepChecks:
    """What a search has been told of its steps; survives a resume.

    Whatever was checked with another learning rate or weight does not
    count: the user has changed it on resuming.

    Args:
        runner (Runner): Trains the search.
        weights (Mapping[str, float]): Weights λ_r by kind.
    """

    def __init__(self, runner: Runner, weights: Mapping[str, float]) -> None:
        self._hub = runner.message_hub
        self._weights = dict(weights)
        self._lr = optimizer_lr(runner)

    def unchecked(self) -> Dict[str, float]:
        """Weights of the kinds that nobody has looked at."""
        return {
            kind: weight
            for kind, weight in self._weights.items()
            if self._noted(kind) is None
        }

    def untold(self) -> Dict[str, float]:
        """Weights of the kinds that nothing was said of."""
        return {
            kind: weight
            for kind, weight in self._weights.items()
            if not self._noted(kind)
        }

    def note(self, kind: str, told: bool) -> None:
        """Remember that a kind was checked, and whether it was warned of."""
        entry = (self._lr * self._weights[kind], told)
        noted = self._hub.get_info(CHECKED, {})
        self._hub.update_info(CHECKED, {**noted, kind: entry})

    def warn(
        self,
        logger: Logger,
        mutator: DMSMutator,
        kinds: Mapping[str, float],
        targets: Mapping[str, float],
    ) -> None:
        """Log warnings and remember it; synchronizes.

        Args:
            logger (Logger): Of the search.
            mutator (DMSMutator): Of the search.
            kinds (Mapping[str, float]): Weights λ_r of what to check.
            targets (Mapping[str, float]): Present ones of all kinds.
        """
        lines = overshoot_warnings(mutator, kinds, self._lr, targets)
        for kind in kinds:
            if kind in lines:
                logger.warning(lines[kind])
            self.note(kind, told=kind in lines)

    def _noted(self, kind: str) -> Optional[bool]:
        """Whether it was warned of; None if it was not checked."""
        nothing: Tuple[Optional[float], Optional[bool]] = (None, None)
        scale, told = self._hub.get_info(CHECKED, {}).get(kind, nothing)
        return told if scale == self._lr * self._weights[kind] else None


def check_steps(
    runner: Runner,
    mutator: DMSMutator,
    weights: Mapping[str, float],
    targets: Mapping[str, float],
    lengths: PhaseLengths,
) -> None:
    """Once in a search, after half of the decay: warn of large steps.

    Then the depth is not held yet, the network has shrunk as much as it
    will once more, and there is time to start again. A search that is
    resumed later is checked then if it was not before.

    Args:
        runner (Runner): Trains the search; its iteration is over.
        mutator (DMSMutator): Of the search.
        weights (Mapping[str, float]): Weights λ_r by kind.
        targets (Mapping[str, float]): Of this iteration.
        lengths (PhaseLengths): Phases of the search.
    """
    if runner.iter + 1 < lengths.warmup + lengths.decay / 2:
        return
    if lengths.at(runner.iter).name != 'decay':
        return
    checks = StepChecks(runner, weights)
    kinds = checks.unchecked()
    if kinds:
        checks.warn(runner.logger, mutator, kinds, targets)
