"""Whole numbers of channels and blocks that meet the targets of a search."""

from copy import deepcopy
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

from torch import Tensor

from dms_mmrazor.core import FitResult, fit_to_targets
from dms_mmrazor.core.allowed import make_units
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator

_SHOWN = 8
"""So many changes are listed by name."""

_ENOUGH = 0.01
"""No block is added to come closer to a target than this."""


class FittedStructure(NamedTuple):
    """A structure, and what of the found one it changes.

    Attributes:
        choices (dict[str, int]): Kept channels (blocks) by unit (stage), as
            :meth:`DMSMutator.set_choices` takes them.
        wishes (dict[str, float]): What the search ended with: continuous
            numbers of channels, whole numbers of blocks.
        nearest (dict[str, int]): The wishes rounded to the nearest allowed
            numbers.
        divisor (int): Of the exported widths.
        shift (float): Added to the kept portions of all units. 0 if the
            rounded wishes were close to the target.
        swaps (int): Pairs of units of which one was narrowed by a step and
            the other one widened.
    """

    choices: Dict[str, int]
    wishes: Dict[str, float]
    nearest: Dict[str, int]
    divisor: int
    shift: float = 0.0
    swaps: int = 0

    @property
    def changed(self) -> List[str]:
        """Units and stages that are not at the nearest allowed number."""
        return [
            name
            for name, number in self.choices.items()
            if number != self.nearest[name]
        ]

    def __str__(self) -> str:
        """One line for the log."""
        same = len(self.choices) - len(self.changed)
        line = (
            f'Rounding: {same} of {len(self.choices)} units and stages keep '
            'the nearest allowed number'
        )
        line += f' (multiples of {self.divisor})' * (self.divisor > 1)
        if self.shift:
            line += f'; all kept portions shifted by {self.shift:+.3f}'
        if self.swaps:
            line += f'; {self.swaps} swapped a step with another'
        if not self.changed:
            return f'{line}.'
        shown = [
            f'{name} {self.wishes[name]:.4g} → {self.choices[name]}'
            for name in self.changed[:_SHOWN]
        ]
        more = len(self.changed) - len(shown)
        rest = f' and {more} more' if more else ''
        return f'{line}; changed: {", ".join(shown)}{rest}.'


def fit_choices(
    mutator: DMSMutator,
    targets: Mapping[str, float],
    divisor: int = 8,
    prices: Optional[Tensor] = None,
) -> Dict[str, int]:
    """The choices of :func:`fit_structure`."""
    return fit_structure(mutator, targets, divisor, prices).choices


def fit_structure(
    mutator: DMSMutator,
    targets: Mapping[str, float],
    divisor: int = 8,
    prices: Optional[Tensor] = None,
) -> FittedStructure:
    """Whole numbers of channels and blocks at or under the targets.

    Depths are those of the hard masks. Only if the narrowest widths still
    exceed a target, blocks are removed, the cheapest first; only if the
    full widths do not reach any target, blocks are added, as far as they
    fit. Widths pay where that is cheapest, see :func:`fit_to_targets`.

    Args:
        mutator (DMSMutator): After a search.
        targets (Mapping[str, float]): Resource kind → absolute target.
            Empty: only the divisibility is met.
        divisor (int): Widths are multiples of it, or full. Defaults to 8.
        prices (Tensor, optional): Of all units and stages, shape [U], see
            :meth:`StructureSearch.prices`. Defaults to None, all the same.

    Raises:
        DMSError: If a target cannot be reached.
    """
    found = [stage.current_choice for stage in mutator.depth_units]
    space = _Space(mutator, targets, divisor, prices)
    kept, depths, result = space.nearest(), list(found), None
    if targets:
        depths, result = space.fit(depths)
        kept = result.kept
    names = [unit.name for unit in mutator.searched_units]
    return FittedStructure(
        dict(zip(names, [*kept, *depths])),
        dict(zip(names, [*space.wishes, *map(float, found)])),
        dict(zip(names, [*space.nearest(), *found])),
        divisor,
        result.shift if result else 0.0,
        result.swaps if result else 0,
    )


class _Space:
    """The widths and depths that an export may choose.

    Args:
        mutator (DMSMutator): After a search.
        targets (Mapping[str, float]): Resource kind → absolute target.
        divisor (int): Of the exported widths.
        prices (Tensor, optional): Of all units and stages, shape [U].
    """

    def __init__(
        self,
        mutator: DMSMutator,
        targets: Mapping[str, float],
        divisor: int,
        prices: Optional[Tensor],
    ) -> None:
        number = len(mutator.units)
        every = [1.0] * len(mutator.topk.sizes)
        every = every if prices is None else prices.tolist()
        self.prices, self.stage_prices = every[:number], every[number:]
        self.mutator = mutator
        self.stages = list(mutator.depth_units)
        self.targets = targets
        self.wishes = mutator.masks.kept().detach().cpu().tolist()
        self.limits = (
            [unit.min_kept for unit in mutator.units],
            [unit.max_kept for unit in mutator.units],
        )
        self.divisors = mutator.divisors(divisor)
        self.models = {
            kind: deepcopy(mutator.table.model(kind)).cpu() for kind in targets
        }

    def nearest(self) -> List[int]:
        """The wished widths, each rounded to its nearest allowed one."""
        units = make_units(
            len(self.wishes), self.wishes, *self.limits, self.divisors
        )
        return [unit.nearest(unit.wish) for unit in units]

    def fit(self, depths: List[int]) -> Tuple[List[int], FitResult]:
        """Depths near these, with widths that meet the targets.

        Raises:
            DMSError: If there are none.
        """
        while True:
            try:
                result = self._widths(depths)
                break
            except ValueError as error:
                shorter = self._shorter(depths)
                if shorter is None:
                    raise DMSError(str(error)) from None
                depths = shorter
        while result.full and self._gap(result) > _ENOUGH:
            better = self._longer(depths, self._gap(result))
            if better is None:
                break
            depths, result = better
        return depths, result

    def _widths(self, depths: List[int]) -> FitResult:
        blocks = self.mutator.block_mask(depths).tolist()
        return fit_to_targets(
            self.models,
            self.targets,
            self.wishes,
            *self.limits,
            blocks,
            self.divisors,
            self.prices,
        )

    def _gap(self, result: FitResult) -> float:
        """How far below the nearest target, relative."""
        return 1 - max(
            value / self.targets[kind]
            for kind, value in result.resources.items()
        )

    def _shorter(self, depths: List[int]) -> Optional[List[int]]:
        """The cheapest stage loses a block, of equal ones the deepest."""
        room = [
            (price, -depth / stage.num_blocks, index)
            for index, (stage, depth, price) in enumerate(
                zip(self.stages, depths, self.stage_prices)
            )
            if depth > stage.min_blocks
        ]
        return _changed(depths, min(room)[2], -1) if room else None

    def _longer(
        self, depths: List[int], gap: float
    ) -> Optional[Tuple[List[int], FitResult]]:
        """A stage gets a block, the one that comes closest to a target."""
        best = None
        for index, (stage, depth) in enumerate(zip(self.stages, depths)):
            if depth == stage.max_blocks:
                continue
            longer = _changed(depths, index, 1)
            try:
                result = self._widths(longer)
            except ValueError:  # not even the narrowest widths fit
                continue
            if self._gap(result) < gap:
                best, gap = (longer, result), self._gap(result)
        return best


def _changed(depths: List[int], index: int, by: int) -> List[int]:
    """The depths with one of them changed."""
    return [d + by * (i == index) for i, d in enumerate(depths)]
