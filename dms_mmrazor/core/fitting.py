"""The end of a search: whole numbers of channels that meet the targets."""

import math
from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from .allowed import Unit, make_units
from .resource import ResourceModel

__all__ = ['FitResult', 'fit_to_targets']

_NEAR = 0.02
"""A rounded wish that is this little under a target is not shifted."""

_CLOSE = 0.002
"""No wish is exceeded by a step or more to come closer to a target."""

_BISECTIONS = 60
"""Halvings of the shift: down to the resolution of a float64 in [-1, 1]."""


class FitResult(NamedTuple):
    """Numbers of channels that meet the targets.

    Attributes:
        kept (list[int]): Channels to keep of each unit.
        resources (dict[str, float]): What that costs, per target.
        changes (int): Units whose number differs from the wish rounded to
            the nearest allowed number.
    """

    kept: List[int]
    resources: Dict[str, float]
    changes: int


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

    Bounded and deterministic, in two steps:

    1. Shift all pruning ratios by one common value, the smallest pruning
       whose rounded numbers meet every target. A rounded wish that is
       under its targets and at least at 98 % of one of them is not
       shifted. One that is further below is shifted upward: the user asked
       for that target, and a search may end under it.
    2. Fill up: add one allowed step to the unit that is furthest below its
       (shifted) wish and still fits. Only if more than 0.2 % of every
       target is left after no unit can be rounded up any more, units may
       exceed their wish by more than a step.

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
    _check_targets(models, targets)
    number = next(iter(models.values())).num_units
    units = make_units(number, kept, minimum, maximum, divisor)
    budget = _Budget(models, targets, block_mask)
    _check_reachable(budget, [unit.smallest for unit in units])
    plain = [unit.nearest(unit.wish) for unit in units]
    active = budget.depends_on([unit.maximum for unit in units])
    movable = [unit for unit in units if active[unit.position]]
    shift = _common_shift(budget, movable, plain)
    counts = _shifted(movable, plain, shift)
    _fill(budget, movable, counts, shift)
    changes = sum(new != old for new, old in zip(counts, plain))
    return FitResult(counts, budget.resources(counts), changes)


class _Budget:
    """The targets with everything fixed but the numbers of channels."""

    def __init__(
        self,
        models: Mapping[str, ResourceModel],
        targets: Mapping[str, float],
        block_mask: Sequence[float],
    ) -> None:
        self.models = models
        self.targets = targets
        device = next(iter(models.values())).coefficient.device
        self.blocks = torch.tensor(
            list(block_mask), dtype=torch.float64, device=device
        )

    def resources(self, counts: Sequence[float]) -> Dict[str, float]:
        """What the numbers of channels cost."""
        with torch.no_grad():
            kept = self._tensor(counts)
            return {
                name: float(model(kept, self.blocks))
                for name, model in self.models.items()
            }

    def excess(self, counts: Sequence[float]) -> float:
        """The largest relative excess over a target; up to 0 all are met."""
        return max(
            (value - self.targets[name]) / self.targets[name]
            for name, value in self.resources(counts).items()
        )

    def depends_on(self, counts: Sequence[float]) -> List[bool]:
        """Whether any resource depends on each of the units."""
        kept = self._tensor(counts).requires_grad_()
        total = sum(model(kept, self.blocks) for model in self.models.values())
        (grad,) = torch.autograd.grad(total, kept)
        return (grad != 0).tolist()

    def _tensor(self, counts: Sequence[float]) -> Tensor:
        return torch.tensor(
            counts, dtype=torch.float64, device=self.blocks.device
        )


def _shifted(
    units: Sequence[Unit], plain: Sequence[int], shift: float
) -> List[int]:
    counts = list(plain)
    for unit in units:
        counts[unit.position] = unit.nearest(unit.shifted(shift))
    return counts


def _common_shift(
    budget: _Budget, units: Sequence[Unit], plain: Sequence[int]
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
    budget: _Budget, units: Sequence[Unit], counts: List[int], shift: float
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


def _check_targets(
    models: Mapping[str, ResourceModel], targets: Mapping[str, float]
) -> None:
    if not models or set(models) != set(targets):
        raise ValueError(
            'models and targets must have the same names, at '
            f'least one, but got {sorted(models)} and '
            f'{sorted(targets)}.'
        )
    for name, target in targets.items():
        if not (target > 0 and math.isfinite(target)):
            raise ValueError(
                f'target {name!r} must be positive and finite, '
                f'but got {target}.'
            )


def _check_reachable(budget: _Budget, smallest: Sequence[int]) -> None:
    for name, value in budget.resources(smallest).items():
        if value > budget.targets[name]:
            raise ValueError(
                f'target {name!r} of {budget.targets[name]:g} cannot be '
                f'reached: the smallest allowed numbers of channels still '
                f'need {value:g}. Raise the target, or lower the minimum '
                'numbers or the divisors.'
            )
