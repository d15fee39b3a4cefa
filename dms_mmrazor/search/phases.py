"""Where a search stands: target, phase and held depth by iteration."""

from typing import Dict, NamedTuple, Optional

from dms_mmrazor.core import Phase
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.search.milestones import Milestone, TargetPath
from dms_mmrazor.search.structure_search import StructureSearch


class Moment(NamedTuple):
    """One iteration of a search.

    Attributes:
        phase (Phase): Phase of the search.
        targets (dict[str, float]): Present targets, absolute.
        news (str, optional): What begins, for a log.
        due (Milestone, optional): What is exported after this iteration.
    """

    phase: Phase
    targets: Dict[str, float]
    news: Optional[str] = None
    due: Optional[Milestone] = None


class SearchPhases:
    """Leads a structure to its targets: *warmup*, *decay*, *refine*.

    At milestones it settles as in *refine*, and goes on from there.

    Args:
        mutator (DMSMutator): Of a prepared supernet.
        structure (StructureSearch): What moves.
        path (TargetPath): Targets of every iteration.
        hold_depth (bool): Hold the depth while refining. Defaults to True.
    """

    def __init__(
        self,
        mutator: DMSMutator,
        structure: StructureSearch,
        path: TargetPath,
        hold_depth: bool = True,
    ) -> None:
        self.mutator = mutator
        self.structure = structure
        self.path = path
        self.timeline = path.timeline
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
        phase = self.timeline.at(iteration)
        targets = self.path.at(iteration)
        self.structure.set_targets(targets)
        progress = min((iteration + 1) / self.timeline.lengths.total, 1.0)
        self.mutator.topk.set_progress_(progress)
        news = self._hold(iteration) if self.hold_depth else None
        return Moment(phase, targets, news, self.path.due(iteration))

    def _hold(self, iteration: int) -> Optional[str]:
        """Hold the depth when refining begins, and then make it hard."""
        hardness, news = self.timeline.hardness(iteration), None
        if self.timeline.stops and not hardness and self._hardness:
            self.mutator.masks.release_depth()
            self._hardness = 0.0
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
        last = iteration + self._iterations_to_hold(iteration)
        return (
            f'The depths are held from iteration {iteration + 1} on '
            f'({depths}). Until iteration {last} blocks that are kept in '
            f"part become whole or none: of the supernet's {changes}, but "
            'the widths follow.'
        )

    def _iterations_to_hold(self, iteration: int) -> int:
        """Iterations until depths that are held from this one on are hard."""
        return max(round(1 / self.timeline.hardness(iteration)), 1)
