"""Where a search stands: target, phase and held depth by iteration."""

from typing import Dict, Mapping, NamedTuple, Optional

from dms_mmrazor.core import Phase
from dms_mmrazor.core.durations import PhaseLengths
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.search.structure_search import StructureSearch
from dms_mmrazor.search.targets import targets_now


class Moment(NamedTuple):
    """One iteration of a search.

    Attributes:
        phase (Phase): Phase of the search.
        targets (dict[str, float]): Present targets, absolute.
        news (str, optional): What begins, for a log.
    """

    phase: Phase
    targets: Dict[str, float]
    news: Optional[str] = None


class SearchPhases:
    """Leads a structure to its targets: *warmup*, *decay*, *refine*.

    Args:
        mutator (DMSMutator): Of a prepared supernet.
        structure (StructureSearch): What moves.
        targets (Mapping[str, float]): Final targets, absolute.
        lengths (PhaseLengths): Of the phases.
        schedule (str): Shape of the decay, see :func:`scheduled_target`.
        hold_depth (bool): Hold the depth while refining.
    """

    def __init__(
        self,
        mutator: DMSMutator,
        structure: StructureSearch,
        targets: Mapping[str, float],
        lengths: PhaseLengths,
        schedule: str = 'exponential',
        hold_depth: bool = True,
    ) -> None:
        self.mutator = mutator
        self.structure = structure
        self.targets = dict(targets)
        self.lengths = lengths
        self.schedule = schedule
        self.hold_depth = hold_depth
        self._hardness = 0.0
        self.resume()

    def resume(self) -> None:
        """Go on with the depths that a loaded state has held."""
        self._hardness = float(self.mutator.topk.held.max())

    def begin(self, iteration: int) -> Moment:
        """Set the targets of an iteration; hold the depth when it is time.

        Args:
            iteration (int): Counted from 0.
        """
        phase = self.lengths.at(iteration)
        targets = targets_now(self.mutator, self.targets, phase, self.schedule)
        self.structure.set_targets(targets)
        progress = min((iteration + 1) / self.lengths.total, 1.0)
        self.mutator.topk.set_progress_(progress)
        news = self._hold(iteration) if self.hold_depth else None
        return Moment(phase, targets, news)

    def _hold(self, iteration: int) -> Optional[str]:
        """Hold the depth when refining begins, and then make it hard."""
        hardness, news = self.lengths.hardness(iteration), None
        if hardness <= self._hardness:
            return None
        if not self._hardness:
            self.structure.agree()
            news = self._hold_depth(iteration)
        self.mutator.topk.harden_(hardness)
        self._hardness = hardness
        return news

    def _hold_depth(self, iteration: int) -> Optional[str]:
        """Freeze the depths; says at what, and what the change will be."""
        mutator = self.mutator
        full = mutator.table.full
        before = {kind: mutator.resource(kind, hard=False) for kind in full}
        mutator.masks.hold_depth()
        depths = ', '.join(
            f'{stage.name} {stage.current_choice} of {stage.num_blocks}'
            for stage in mutator.depth_units
        )
        changes = ', '.join(
            f'{kind} {before[kind] / whole:.3f} → '
            f'{mutator.resource(kind, hard=False) / whole:.3f}'
            for kind, whole in full.items()
        )
        if not depths:
            return None
        last = iteration + self.lengths.iterations_to_hold()
        return (
            f'The depths are held from iteration {iteration + 1} on '
            f'({depths}). Until iteration {last} blocks that are kept in '
            f"part become whole or none: of the supernet's {changes}, but "
            'the widths follow.'
        )
