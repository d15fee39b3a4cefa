"""The way of a target: how it falls, and budgets that a search passes.

At each of these milestones the search settles and exports.
"""

import math
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from dms_mmrazor.core import scheduled_target
from dms_mmrazor.core.durations import (
    Duration,
    PhaseLengths,
    check_durations,
    iterations_of,
    phase_lengths,
)
from dms_mmrazor.core.milestones import Timeline, plan_stops
from dms_mmrazor.core.schedule import SHAPES
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.search.targets import Target, resolve_targets
from dms_mmrazor.supernet.resources import RESOURCES


class Milestone(NamedTuple):
    """A budget on the way to the final one.

    Attributes:
        name (str): Of its folder, after what the user wrote: 'subnet-75'.
        targets (dict[str, float]): Absolute, by kind.
    """

    name: str
    targets: Dict[str, float]


def as_milestones(
    milestones: Optional[Sequence[Any]],
    wanted: Mapping[str, Target],
    owner: str = 'ResourceHook',
) -> Dict[str, Dict[str, Target]]:
    """Milestones as users write them, by the name of their folder.

    Args:
        milestones (Sequence, optional): Each as the target: a ratio, '75%',
            '1G', or by kind if the target is.
        wanted (Mapping[str, Target]): The target, by kind.
        owner (str): Whose setting it is. Defaults to 'ResourceHook'.

    Raises:
        DMSError: If one cannot be meant.
    """
    if milestones is None:
        return {}
    if isinstance(milestones, (str, Mapping)) or not isinstance(
        milestones, Sequence
    ):
        raise DMSError(
            f'{owner}: `milestones` must be a list such as '
            f"['75%', '50%'], got {milestones!r}."
        )
    named: Dict[str, Dict[str, Target]] = {}
    for index, milestone in enumerate(milestones):
        key = f'{owner}: `milestones[{index}]`'
        if not isinstance(milestone, Mapping):
            milestone = dict.fromkeys(list(wanted)[:1], milestone)
        if set(milestone) != set(wanted):
            raise DMSError(
                f'{key} must set the kinds of the target, {list(wanted)}, '
                f'as in {dict.fromkeys(wanted, 0.5)}; got {milestone!r}.'
            )
        name = f'subnet-{_label(next(iter(milestone.values())))}'
        if name in named:
            raise DMSError(f'{key} is there twice: both are {name}.')
        named[name] = dict(milestone)
    return named


class Course(NamedTuple):
    """How the target of a search falls, as its user has written it.

    Attributes:
        owner (str): Whose settings these are, for messages.
        warmup (float | str): How long nothing is constrained.
        decay (float | str): How long the target falls.
        schedule (str): Shape of each leg, see :func:`scheduled_target`.
        milestones (dict): Of :func:`as_milestones`.
        settle (float | str): How long the target stays at each of them.
        divisor (int): Of the exported widths. Defaults to 1.
    """

    owner: str
    warmup: Duration
    decay: Duration
    schedule: str
    milestones: Dict[str, Dict[str, Target]]
    settle: Duration
    divisor: int = 1

    def check(self) -> 'Course':
        """Itself, if phases and shape can be meant.

        Raises:
            DMSError: If they cannot.
        """
        if self.schedule not in SHAPES:
            raise DMSError(
                f'{self.owner}: `schedule` must be one of {list(SHAPES)}, '
                f'got {self.schedule!r}.'
            )
        try:
            check_durations(self.warmup, self.decay)
        except ValueError as error:
            raise DMSError(f'{self.owner}: {error}') from None
        return self

    def path(
        self,
        mutator: DMSMutator,
        targets: Mapping[str, float],
        total: int,
        per_epoch: Optional[float] = None,
    ) -> 'TargetPath':
        """The targets of every iteration of a training.

        Args:
            mutator (DMSMutator): Of a prepared supernet.
            targets (Mapping[str, float]): Final ones, absolute.
            total (int): Iterations of the search.
            per_epoch (float, optional): Iterations of an epoch. Defaults to
                None, it has none.

        Raises:
            DMSError: If the phases do not fit into the training, or a
                milestone cannot be reached.
        """
        try:
            lengths = phase_lengths(self.warmup, self.decay, total, per_epoch)
            stay = iterations_of('settle', self.settle, total, per_epoch)
        except ValueError as error:
            raise DMSError(f'{self.owner}: {error}') from None
        return TargetPath(
            mutator,
            targets,
            lengths,
            self.schedule,
            self.milestones,
            stay,
            self.divisor,
            self.owner,
        )


def _label(target: Target) -> str:
    """What a folder is called after: 0.75 and '75%' → '75', '1G' → '1G'."""
    text = str(target).strip().replace(' ', '')
    if text.endswith('%'):
        return text[:-1]
    is_ratio = isinstance(target, (int, float)) and 0 < target <= 1
    return f'{100 * target:g}' if is_ratio else text


class TargetPath:
    """The targets of every iteration: through milestones to the final one.

    Attributes:
        timeline (Timeline): Phases, legs and stops.
        milestones (tuple[Milestone, ...]): In the order of the search.

    Args:
        mutator (DMSMutator): Of a prepared supernet.
        targets (Mapping[str, float]): Final ones, absolute.
        lengths (PhaseLengths): Of the search.
        schedule (str): Shape of each leg, see :func:`scheduled_target`.
            Defaults to 'exponential'.
        milestones (Mapping, optional): Of :func:`as_milestones`. Defaults to
            None, a single budget.
        settle (float): Iterations at each milestone. Defaults to 0.
        divisor (int): Of the exported widths. Defaults to 1.
        owner (str): Whose settings these are. Defaults to 'ResourceHook'.

    Raises:
        DMSError: If a milestone cannot be reached, they do not fall, or
            there is no time to settle.
    """

    def __init__(
        self,
        mutator: DMSMutator,
        targets: Mapping[str, float],
        lengths: PhaseLengths,
        schedule: str = 'exponential',
        milestones: Optional[Mapping[str, Mapping[str, Target]]] = None,
        settle: float = 0.0,
        divisor: int = 1,
        owner: str = 'ResourceHook',
    ) -> None:
        self.schedule = schedule
        self.targets = dict(targets)
        full = {kind: mutator.table.full[kind] for kind in targets}
        self.milestones = tuple(
            Milestone(
                name,
                resolve_targets(
                    mutator, wanted, divisor, owner, f'milestones[{index}]'
                ),
            )
            for index, (name, wanted) in enumerate((milestones or {}).items())
        )
        self._ends = [full, *(m.targets for m in self.milestones), targets]
        distances = self._distances(owner)
        try:
            self.timeline: Timeline = plan_stops(lengths, distances, settle)
        except ValueError as error:
            raise DMSError(f'{owner}: {error}') from None

    def at(self, iteration: int) -> Dict[str, float]:
        """Absolute targets of an iteration; infinite in the warm-up.

        Args:
            iteration (int): Counted from 0.
        """
        if self.timeline.at(iteration).name == 'warmup':
            return dict.fromkeys(self.targets, float('inf'))
        leg, progress = self.timeline.leg(iteration)
        before, after = self._ends[leg], self._ends[leg + 1]
        return {
            kind: scheduled_target(
                progress, before[kind], after[kind], self.schedule
            )
            for kind in self.targets
        }

    def due(self, iteration: int) -> Optional[Milestone]:
        """The milestone that is exported after an iteration, if any."""
        index = self.timeline.due(iteration)
        return self.milestones[index] if index >= 0 else None

    def _distances(self, owner: str) -> List[float]:
        """Lengths of the legs: how far the logarithm of the target falls.

        With the exponential schedule, the way is that of a search without
        milestones, with stops.
        """
        if not self.milestones:
            return [1.0]
        distances = []
        names = [*(m.name for m in self.milestones), 'the target']
        for name, before, after in zip(names, self._ends, self._ends[1:]):
            falls = {k: math.log(before[k] / after[k]) for k in self.targets}
            kind = min(falls, key=lambda k: falls[k])
            text = RESOURCES[kind].format
            if falls[kind] < -1e-9 or max(falls.values()) <= 1e-9:
                raise DMSError(
                    f'{owner}: `milestones` must fall from the supernet to '
                    f'the target, but {name} ({text(after[kind])} {kind}) is '
                    f'not below what is before it ({text(before[kind])}).'
                )
            distances.append(max(falls.values()))
        return distances
