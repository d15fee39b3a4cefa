"""Come closer to a target by swaps: one unit narrower, another one wider."""

from typing import Dict, List, Sequence, Tuple

import torch
from torch import Tensor

from .allowed import Unit
from .budget import Budget

__all__ = ['swap_towards']

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
