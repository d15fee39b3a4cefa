"""The end of a search: whole numbers of channels that meet the targets."""

from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .allowed import Unit, make_units
from .budget import Budget
from .resource import ResourceModel

__all__ = ['FitResult', 'fit_to_targets', 'swap_towards']

_NEAR = 0.02
"""Wishes that are this close to a target are not shifted."""

_CLOSE = 0.002
"""Units are not widened further to come closer to a target than this."""

_WINDOW = {False: 0.005, True: 0.01}
"""How near a target is near enough, by whether there is a divisor."""

_DEAREST = 3.0
"""Prices beyond so many times the usual one, or below a part of it so
small, count as that: the rest is noise."""

_BISECTIONS = 60
"""Halvings of the shift: down to the resolution of a float64 in [-1, 1]."""

_ROUNDS = 6
"""Most swaps that are made."""

_UNITS = 64
"""Units that are tried: U of them have about U squared pairs."""

_LEAST = 1e-9
"""A smaller gain is a rounding error."""

_REPEATED = 8
"""So many times more candidates are looked at, to find different ones."""

_CANDIDATES = 1 << 14
"""Pairs that a round evaluates at most, as a rule."""


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
    prices: Optional[Sequence[float]] = None,
) -> FitResult:
    """Round the wished numbers so that no target is exceeded.

    The wishes are rounded to the nearest allowed numbers. What is then too
    much is paid where it is cheapest: step by step the unit is narrowed
    that loses least for what it saves; what is left goes to whoever gains
    most for it. The task loss of a unit that keeps k channels and wished w
    is taken as ``p · e · (w / k − 1)``: its price p times its elasticity
    ``e = −∂log r / ∂log k`` at the wish, and growing as it is narrowed.

    Bounded and deterministic. Wishes that are further than 2 % from the
    target, as those of baselines, get one common portion added first. If
    more than 0.5 % of every target is left (1 % where there is a divisor)
    and no single step fits, pairs of units swap a step, see
    :func:`swap_towards`. Units that no model depends on (in a removed
    block) keep their rounded wish. Every resource must be non-decreasing in
    every unit.

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
        prices (Sequence[float], optional): Task loss per log-resource of
            each unit, see :meth:`StructureStep.prices`; their scale does
            not matter. Defaults to None, all the same.

    Returns:
        FitResult: At or under every target and as close to one of them as
        the units allow.

    Raises:
        ValueError: If even the smallest allowed numbers exceed a target
            (with what they reach), or the arguments do not fit together.
    """
    budget = Budget(models, targets, block_mask)
    number = next(iter(models.values())).num_units
    units = make_units(number, kept, minimum, maximum, divisor, prices)
    budget.check_reachable([unit.smallest for unit in units])
    plain = [unit.nearest(unit.wish) for unit in units]
    active = budget.depends_on([unit.maximum for unit in units])
    movable = [unit for unit in units if active[unit.position]]
    shift = _common_shift(budget, movable, plain)
    movable = [unit.shifted(shift) for unit in movable]
    counts = list(plain)
    for unit in movable:
        counts[unit.position] = unit.nearest(unit.wish)
    worth = _worth(budget, movable, [unit.wish for unit in units])
    _narrow(budget, movable, counts, worth)
    _widen(budget, movable, counts, worth)
    window = _WINDOW[max(divisor, default=1) > 1]
    counts, swaps = swap_towards(budget, movable, counts, worth, window)
    changes = sum(new != old for new, old in zip(counts, plain))
    full = all(counts[unit.position] == unit.maximum for unit in movable)
    resources = budget.resources(counts)
    return FitResult(counts, resources, changes, shift, swaps, full)


def _common_shift(
    budget: Budget, units: Sequence[Unit], plain: Sequence[int]
) -> float:
    """What all kept portions lack to be at the targets, if it is much."""

    def excess(shift: float) -> float:
        counts = [float(number) for number in plain]
        for unit in units:
            counts[unit.position] = unit.shifted(shift).wish
        return budget.excess(counts)

    if min(abs(budget.excess(plain)), abs(excess(0.0))) <= _NEAR:
        return 0.0
    # Shifts of -1 and 1 prune everything and nothing, whatever the wish.
    low, high = -1.0, 1.0
    if excess(high) <= 0:
        return high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if excess(middle) <= 0:
            low = middle
        else:
            high = middle
    return low


def _worth(
    budget: Budget, units: Sequence[Unit], wishes: Sequence[float]
) -> Tensor:
    """Price times elasticity of each unit, [len(units)], on the CPU."""
    if not units:
        return torch.zeros(0, dtype=torch.float64)
    elasticity = budget.elasticities(wishes).cpu()
    share = elasticity[[unit.position for unit in units]]
    prices = share.new_tensor([unit.price for unit in units])
    usual = (share * prices.abs()).sum() / share.sum().clamp(min=1e-300)
    if not usual > 0:
        return share
    return share * (prices / usual).clamp(1 / _DEAREST, _DEAREST)


def _steps(
    budget: Budget,
    units: Sequence[Unit],
    counts: Sequence[int],
    worth: Tensor,
    numbers: Sequence[int],
) -> List[Tensor]:
    """Excesses [U] and losses [U] if one of the units changes its number."""
    rows = torch.tensor([counts] * len(units), dtype=torch.float64)
    new = torch.tensor(numbers, dtype=torch.float64)
    place = [unit.position for unit in units]
    old = rows[0, place]
    rows[torch.arange(len(units)), place] = new
    wish = new.new_tensor([unit.wish for unit in units])
    loss = worth * wish * (1 / new.clamp(min=0.5) - 1 / old.clamp(min=0.5))
    return [budget.excesses(rows.to(budget.blocks.device)).cpu(), loss]


def _narrow(
    budget: Budget, units: Sequence[Unit], counts: List[int], worth: Tensor
) -> None:
    """Save where it costs least, one allowed step at a time, in place."""
    excess = budget.excess(counts)
    while excess > 0:
        fewer = [unit.preceding(counts[unit.position]) for unit in units]
        left, loss = _steps(budget, units, counts, worth, fewer)
        saved = excess - left
        price = (loss / saved).masked_fill(saved <= 0, float('inf'))
        index = int(price.argmin())
        if saved[index] <= 0:
            # Targets whose nearest one no single unit lowers: all together.
            for unit, number in zip(units, fewer):
                counts[unit.position] = number
            excess = budget.excess(counts)
            continue
        counts[units[index].position] = fewer[index]
        excess = float(left[index])


def _widen(
    budget: Budget, units: Sequence[Unit], counts: List[int], worth: Tensor
) -> None:
    """Spend what is left where it gains most, in place."""
    excess = budget.excess(counts)
    while units and excess < -_CLOSE:
        more = [unit.following(counts[unit.position]) for unit in units]
        left, loss = _steps(budget, units, counts, worth, more)
        at_limit = torch.tensor(
            [counts[u.position] == number for u, number in zip(units, more)],
            dtype=torch.bool,
        )
        gain = -loss / (left - excess).clamp(min=1e-12)
        gain = gain.masked_fill((left > 0) | at_limit, -float('inf'))
        if gain.max() == -float('inf'):
            return
        index = int(gain.argmax())
        counts[units[index].position] = more[index]
        excess = float(left[index])


def swap_towards(
    budget: Budget,
    units: Sequence[Unit],
    counts: Sequence[int],
    worth: Tensor,
    window: float,
) -> Tuple[List[int], int]:
    """Swap until a target is closer than ``window``, if swaps can do that.

    Where one more step of any unit would exceed a target, a step up of one
    unit together with a step down of another may still fit. Every round
    evaluates all such pairs (and single steps) from the numbers that came
    closest in the round before, also from some that exceed a target. Of
    the numbers that come into the window in the earliest round, those that
    cost least are taken; if none does, those that are closest under the
    targets. Deterministic; six rounds at most.

    Args:
        budget (Budget): The targets.
        units (Sequence[Unit]): Units that may change.
        counts (Sequence[int]): Numbers of all units; they meet the targets.
        worth (Tensor): What ``w / k`` of each of the units costs, shape
            [len(units)], see :func:`fit_to_targets`.
        window (float): How far below a target is close enough, relative.

    Returns:
        tuple[list[int], int]: The numbers, and how many swaps were made.
    """
    gap, swaps = -budget.excess(counts), 0
    best = torch.tensor(
        list(counts), dtype=torch.float64, device=budget.blocks.device
    )
    # Fine steps first: they come closest.
    order = sorted(
        range(len(units)), key=lambda i: units[i].divisor / units[i].maximum
    )[:_UNITS]
    units, worth = [units[i] for i in order], worth[order].to(best)
    frontier = best[None]
    for number in range(1, _ROUNDS + 1):
        if gap <= window or not units:
            break
        frontier = torch.cat([_neighbors(units, row) for row in frontier])
        gaps = -budget.excesses(frontier)
        index = _choose(units, frontier, gaps, worth, window)
        if 0 <= gaps[index] < gap - _LEAST:
            best, gap, swaps = frontier[index], float(gaps[index]), number
        width = max(1, _CANDIDATES // len(units) ** 2)
        frontier = _closest(frontier, gaps.abs(), width)
    return [int(count) for count in best.tolist()], swaps


def _closest(candidates: Tensor, distance: Tensor, number: int) -> Tensor:
    """Different candidates, the closest ones; many pairs lead to the same."""
    order = distance.argsort(stable=True)[: number * _REPEATED]
    chosen: Dict[Tuple[float, ...], int] = {}
    for index, row in zip(order.tolist(), candidates[order].tolist()):
        chosen.setdefault(tuple(row), index)
    return candidates[list(chosen.values())[:number]]


def _choose(
    units: Sequence[Unit],
    candidates: Tensor,
    gaps: Tensor,
    worth: Tensor,
    window: float,
) -> int:
    """The cheapest within the window, else the closest that fits."""
    fits = gaps >= 0
    inside = fits & (gaps <= window)
    if not inside.any():
        return int(gaps.masked_fill(~fits, float('inf')).argmin())
    wishes = candidates.new_tensor([unit.wish for unit in units])
    kept = candidates[:, [unit.position for unit in units]]
    loss = (worth * wishes / kept.clamp(min=0.5)).sum(1)
    return int(loss.masked_fill(~inside, float('inf')).argmin())


def _neighbors(units: Sequence[Unit], present: Tensor) -> Tensor:
    """Numbers [M, U] one step up of a unit, one down of another, or both."""
    positions = [unit.position for unit in units]
    numbers = [int(number) for number in present[positions].tolist()]
    ups = [unit.following(n) for unit, n in zip(units, numbers)]
    downs = [unit.preceding(n) for unit, n in zip(units, numbers)]
    rows = torch.arange(len(units))
    result = present.repeat(len(units) + 1, len(units) + 1, 1)
    # The last row (column) leaves the numbers as they are.
    result[rows, :, positions] = present.new_tensor(ups)[:, None]
    result[:, rows, positions] = present.new_tensor(downs)
    # On the diagonal a unit has gone down; the last column repeats that.
    return result.flatten(0, 1)
