"""The structures of a search space as choices: drawn, mutated, crossed.

What evolution, random search and the training of supernets with shared
weights need: everything here is decided by a generator of random numbers
that the caller gives, so that equal seeds give equal structures.
"""

import math
import random
from statistics import median
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor

from dms_mmrazor.core.allowed import make_units
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit

Choices = Dict[str, int]
"""Kept channels (blocks) by unit (stage)."""

TRIES = 100
"""Draws that may exceed the targets before a chain takes over."""

SWEEPS = 20
"""Passes of the chain over all units and stages."""

_EXACT = 1 + 1e-9

_REMEMBERED = 100_000
"""Structures of which it is remembered whether they meet the targets."""


class ChoiceSpace:
    """All structures within the targets of a prepared mutator.

    Which channels and blocks a number keeps is decided by the importances
    at the time when the space is made.

    Attributes:
        names (tuple[str, ...]): Units, then stages.
        allowed (tuple[tuple[int, ...], ...]): Numbers that each may keep,
            ascending.

    Args:
        mutator (DMSMutator): Of a prepared supernet.
        targets (Mapping[str, float], optional): Resource kind → absolute
            upper limit. Defaults to None, no limits.
        divisor (int): Widths are multiples of it, or full. Defaults to 1.

    Raises:
        DMSError: If not even the smallest structure meets the targets.
    """

    def __init__(
        self,
        mutator: 'DMSMutator',  # noqa: F821  (it imports this file)
        targets: Optional[Mapping[str, float]] = None,
        divisor: int = 1,
    ) -> None:
        units, stages = list(mutator.units), list(mutator.depth_units)
        self.names = tuple(unit.name for unit in [*units, *stages])
        self.targets = dict(targets or {})
        self._table = mutator.table
        self._widths = len(units)
        widths = make_units(
            len(units),
            [unit.max_kept for unit in units],
            [unit.min_kept for unit in units],
            [unit.max_kept for unit in units],
            mutator.divisors(divisor),
        )
        depths = [range(s.min_blocks, s.max_blocks + 1) for s in stages]
        self.allowed = (
            *(_numbers(unit) for unit in widths),
            *(tuple(numbers) for numbers in depths),
        )
        self._masks = _depth_masks(mutator)
        self._masks_of = mutator.topk, mutator.masks
        self._known: Dict[Tuple[int, ...], bool] = {}
        smallest = [numbers[0] for numbers in self.allowed]
        if not self._fit(smallest):
            found = self.resources(dict(zip(self.names, smallest)))
            raise DMSError(
                f'no structure of the space meets the targets '
                f'{self.targets}: the smallest has {found}. Raise the '
                'target, or lower `min_ratio`, `min_blocks` or `divisor`.'
            )

    @property
    def smallest(self) -> Choices:
        """The structure that keeps least."""
        return self._named([numbers[0] for numbers in self.allowed])

    @property
    def largest(self) -> Choices:
        """The structure that keeps most, whatever the targets."""
        return self._named([numbers[-1] for numbers in self.allowed])

    @property
    def log10_size(self) -> float:
        """Logarithm of the number of structures, whatever the targets."""
        return sum(math.log10(len(numbers)) for numbers in self.allowed)

    def resources(self, choices: Mapping[str, int]) -> Dict[str, float]:
        """Resources of a structure, by kind, absolute."""
        values = [choices[name] for name in self.names]
        kept, blocks = self._kept(values), self._blocks(values)
        kinds = self._table.full
        return {k: self._table.evaluate(k, kept, blocks) for k in kinds}

    def fits(self, choices: Mapping[str, int]) -> bool:
        """Whether a structure meets the targets."""
        return self._fit([choices[name] for name in self.names])

    def sample(self, draw: random.Random) -> Choices:
        """A structure, uniform among those that meet the targets.

        Drawn from the whole space until one meets them; where 100 draws do
        not, a Gibbs chain of 20 sweeps from the smallest structure, whose
        stationary distribution is the uniform one: any number of a unit
        that meets the targets with the others as they are is as likely.

        Args:
            draw (random.Random): Source of randomness.
        """
        for _ in range(TRIES):
            values = [draw.choice(numbers) for numbers in self.allowed]
            if self._fit(values):
                return self._named(values)
        values = [numbers[0] for numbers in self.allowed]
        for _ in range(SWEEPS):
            for index in draw.sample(range(len(values)), len(values)):
                values[index] = draw.choice(self._fitting(values, index))
        return self._named(values)

    def mutate(
        self,
        parent: Mapping[str, int],
        probability: float,
        draw: random.Random,
    ) -> Choices:
        """A structure in which some numbers of another are drawn anew.

        Args:
            parent (Mapping[str, int]): The other structure.
            probability (float): Of each number to be drawn anew.
            draw (random.Random): Source of randomness.
        """

        def child() -> List[int]:
            return [
                draw.choice(numbers)
                if draw.random() < probability
                else parent[name]
                for name, numbers in zip(self.names, self.allowed)
            ]

        return self._first_fitting(child, draw)

    def cross(
        self,
        first: Mapping[str, int],
        second: Mapping[str, int],
        draw: random.Random,
    ) -> Choices:
        """A structure whose every number is that of one of two parents."""

        def child() -> List[int]:
            return [
                (first if draw.random() < 0.5 else second)[name]
                for name in self.names
            ]

        return self._first_fitting(child, draw)

    def _first_fitting(
        self, child: Callable[[], List[int]], draw: random.Random
    ) -> Choices:
        """The first child within the targets, else a fresh structure."""
        for _ in range(TRIES):
            values = child()
            if self._fit(values):
                return self._named(values)
        return self.sample(draw)

    def _named(self, values: Sequence[int]) -> Choices:
        return dict(zip(self.names, values))

    def _kept(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values[: self._widths], dtype=torch.float64)

    def _blocks(self, values: Sequence[int]) -> Tensor:
        """0/1 depth masks [B]."""
        depths = zip(self._masks, values[self._widths :])
        parts = [masks[depth] for masks, depth in depths]
        return torch.cat([torch.zeros(0), *parts])

    def show(self, choices: Mapping[str, int]) -> None:
        """Let the supernet show a structure, quicker than `set_choices`.

        Args:
            choices (Mapping[str, int]): Of every unit and stage.
        """
        topk, masks = self._masks_of
        ratios = [
            1 - -(-choices[name] // op.step) / op.num_elements
            for name, op in zip(self.names, topk.operators)
        ]
        ratio = topk.pruning_ratio
        ratio.data.copy_(torch.tensor(ratios, dtype=ratio.dtype))
        masks.use_hard_masks()

    def _fit(self, values: Sequence[int]) -> bool:
        key = tuple(values)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            kept, blocks = self._kept(values), self._blocks(values)
            self._known[key] = all(
                self._table.evaluate(kind, kept, blocks) <= target * _EXACT
                for kind, target in self.targets.items()
            )
        return self._known[key]

    def _fitting(self, values: Sequence[int], index: int) -> List[int]:
        """Numbers of one unit that meet the targets beside the others.

        Resources never fall when more is kept: it is the first ones.
        """
        numbers, low, high = self.allowed[index], 0, len(self.allowed[index])
        trial = list(values)
        while high - low > 1:
            middle = (low + high) // 2
            trial[index] = numbers[middle]
            low, high = (middle, high) if self._fit(trial) else (low, middle)
        return list(numbers[:high])


def _numbers(unit: 'Unit') -> Tuple[int, ...]:  # noqa: F821
    """Allowed numbers of channels of a unit, ascending."""
    numbers = [unit.smallest]
    while numbers[-1] < unit.maximum:
        numbers.append(unit.following(numbers[-1]))
    return tuple(numbers)


def _depth_masks(
    mutator: 'DMSMutator',  # noqa: F821
) -> List[Dict[int, Tensor]]:
    """For each stage: number of kept blocks → 0/1 mask of its blocks."""
    stages = list(mutator.depth_units)
    sizes = [stage.num_blocks for stage in stages]
    found: List[Dict[int, Tensor]] = [{} for _ in stages]
    for depth in range(max(sizes, default=-1) + 1):
        depths = [min(max(depth, s.min_blocks), s.max_blocks) for s in stages]
        parts = mutator.block_mask(depths).split(sizes) if stages else ()
        for masks, number, part in zip(found, depths, parts):
            masks[number] = part
    return found


def full_choices(
    units: Sequence[DMSChannelUnit], stages: Sequence[DMSDepthUnit]
) -> Dict[str, int]:
    """As many channels and blocks as may be kept, by unit and stage."""
    full = {unit.name: unit.max_kept for unit in units}
    return {**full, **{stage.name: stage.max_blocks for stage in stages}}


def narrow_choices(
    units: Sequence[DMSChannelUnit],
    stages: Sequence[DMSDepthUnit],
    trial: int = 0,
) -> Dict[str, int]:
    """Random numbers that are well below the full ones where they can be.

    Each depends on the unit's name alone, not on which others there are. A
    number next to the full one may hide that a unit is misunderstood.

    Args:
        units (Sequence[DMSChannelUnit]): Width units.
        stages (Sequence[DMSDepthUnit]): Depth units.
        trial (int): Other numbers of channels for each; all blocks but in
            the first one, as what is in a removed block is not seen. With 2
            all units keep as many where they can: code may ask for that.
            Defaults to 0.
    """
    limits = {u.name: (u.min_kept, u.max_kept, u.step) for u in units}
    for stage in stages:
        limits[stage.name] = (stage.min_blocks, stage.max_blocks, 1)
    choices = {
        name: random.Random(f'{name} {trial}').randrange(
            low, max(3 * high // 4, low + 1), step
        )
        for name, (low, high, step) in limits.items()
    }
    if trial > 1 and units:
        number = int(median(unit.max_kept for unit in units)) // 2
        for unit in units:
            low, high, step = limits[unit.name]
            rounded = low + max(number - low, 0) // step * step
            choices[unit.name] = min(rounded, high)
    if trial:
        choices.update({stage.name: stage.max_blocks for stage in stages})
    return choices
