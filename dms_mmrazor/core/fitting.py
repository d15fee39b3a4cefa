"""The end of a search: whole numbers of channels that meet the targets."""

from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple

from .allowed import Unit, make_units
from .budget import Budget
from .resource import ResourceModel
from .swaps import swap_towards

__all__ = ['FitResult', 'fit_to_targets']

_NEAR = 0.02
"""A rounded wish that is this little under a target is not shifted."""

_CLOSE = 0.002
"""No wish is exceeded by a step or more to come closer to a target."""

_WINDOW = {False: 0.005, True: 0.01}
"""How near a target is near enough, by whether there is a divisor."""

_BISECTIONS = 60
"""Halvings of the shift: down to the resolution of a float64 in [-1, 1]."""


class FitResult(NamedTuple):
    """Numbers of channels that meet the targets.

    Attributes:
        kept (list[int]): Channels to keep of each unit.
        resources (dict[str, float]): What that costs, per target.
        changes (int): Units whose number differs from the wish rounded to
            the nearest allowed number.
        shift (float): Added to the kept portions of all units at first.
        swaps (int): Pairs of units of which one was narrowed by a step and
            the other one widened by a step at last.
        full (bool): Whether every unit that costs something is at its
            maximum: only more blocks could come closer to a target.
    """

    kept: List[int]
    resources: Dict[str, float]
    changes: int
    shift: float
    swaps: int
    full: bool


def fit_to_targets(
    models: Mapping[str, ResourceModel],
    targets: Mapping[str, float],
    kept: Sequence[float],
    minimum: Sequence[int],
    maximum: Sequence[int],
    block_mask: Sequence[float],
    divisor: Sequence[int],
) -> FitResult:
    """Round the wished numbers so that no target is exceeded.

    Bounded and deterministic, in three steps:

    1. Shift all pruning ratios by one common value, the smallest pruning
       whose rounded numbers meet every target. A rounded wish that is
       under its targets and at least at 98 % of one of them is not
       shifted. One that is further below is shifted upward: the user asked
       for that target, and a search may end under it.
    2. Fill up: add one allowed step to the unit that is furthest below its
       (shifted) wish and still fits. Only if more than 0.2 % of every
       target is left after no unit can be rounded up any more, units may
       exceed their wish by more than a step.
    3. Swap: while more than 0.5 % of every target is left (1 % where there
       is a divisor), widen one unit by a step and narrow another one, the
       pair that leads into this window with the least change, else the one
       that comes closest, until no pair comes closer.

    Units that no model depends on (in a removed block) keep their rounded
    wish. Every resource must be non-decreasing in every unit.

    Args:
        models (Mapping[str, ResourceModel]): Resource model of each target.
        targets (Mapping[str, float]): Largest allowed resources, the same
            names.
        kept (Sequence[float]): Wished numbers of channels of the U units.
        minimum (Sequence[int]): Fewest channels of each unit, >= 0.
        maximum (Sequence[int]): Most channels of each unit.
        block_mask (Sequence[float]): Depth masks of the blocks, fixed.
        divisor (Sequence[int]): Allowed are the multiples of it between
            minimum and maximum, and the maximum itself, so that a layer of
            full width may stay.

    Returns:
        FitResult: At or under every target and as close to one of them as
        the units allow.

    Raises:
        ValueError: If even the smallest allowed numbers exceed a target
            (with what they reach), or the arguments do not fit together.
    """
    budget = Budget(models, targets, block_mask)
    number = next(iter(models.values())).num_units
    units = make_units(number, kept, minimum, maximum, divisor)
    budget.check_reachable([unit.smallest for unit in units])
    plain = [unit.nearest(unit.wish) for unit in units]
    active = budget.depends_on([unit.maximum for unit in units])
    movable = [unit for unit in units if active[unit.position]]
    shift = _common_shift(budget, movable, plain)
    counts = _shifted(movable, plain, shift)
    _fill(budget, movable, counts, shift)
    window = _WINDOW[max(divisor, default=1) > 1]
    counts, swaps = swap_towards(budget, movable, counts, shift, window)
    changes = sum(new != old for new, old in zip(counts, plain))
    resources = budget.resources(counts)
    full = all(counts[unit.position] == unit.maximum for unit in movable)
    return FitResult(counts, resources, changes, shift, swaps, full)


def _shifted(
    units: Sequence[Unit], plain: Sequence[int], shift: float
) -> List[int]:
    counts = list(plain)
    for unit in units:
        counts[unit.position] = unit.nearest(unit.shifted(shift))
    return counts


def _common_shift(
    budget: Budget, units: Sequence[Unit], plain: Sequence[int]
) -> float:
    """Step 1: the largest shift whose rounded numbers meet the targets."""
    excess = budget.excess(plain)
    if -_NEAR <= excess <= 0:
        return 0.0
    # Shifts of -1 and 1 prune everything and nothing, whatever the wish.
    low, high = (-1.0, 0.0) if excess > 0 else (0.0, 1.0)
    if budget.excess(_shifted(units, plain, high)) <= 0:
        return high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if budget.excess(_shifted(units, plain, middle)) <= 0:
            low = middle
        else:
            high = middle
    return low


def _fill(
    budget: Budget, units: Sequence[Unit], counts: List[int], shift: float
) -> None:
    """Step 2: spend what is left, one allowed step at a time, in place."""

    def priority(unit: Unit) -> Tuple[bool, float, int]:
        """Roundings first, then whoever is furthest below its wish."""
        above = unit.following(counts[unit.position]) - unit.shifted(shift)
        return above >= unit.divisor, above / unit.maximum, unit.position

    excess = budget.excess(counts)
    candidates = [
        unit for unit in units if counts[unit.position] < unit.maximum
    ]
    while candidates:
        unit = min(candidates, key=priority)
        if priority(unit)[0] and excess >= -_CLOSE:
            return
        before = counts[unit.position]
        counts[unit.position] = unit.following(before)
        trial = budget.excess(counts)
        if trial <= 0:
            excess = trial
        else:
            counts[unit.position] = before
        # Resources never fall, so what does not fit now never will.
        if trial > 0 or counts[unit.position] == unit.maximum:
            candidates.remove(unit)
