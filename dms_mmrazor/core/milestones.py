"""Stops on the way of a falling target: several budgets from one search."""

import math
from typing import NamedTuple, Sequence, Tuple

from .durations import PhaseLengths
from .schedule import Phase

__all__ = ['Stop', 'Timeline', 'plan_stops']


class Stop(NamedTuple):
    """Iterations in which the target stays at a milestone.

    Attributes:
        begin (int): The first one, counted from 0.
        end (int): The first one after it; an export comes before that.
    """

    begin: int
    end: int


class Timeline(NamedTuple):
    """Phases of a search whose decay is interrupted by stops.

    Between stops the target moves in legs: leg i leads to stop i, the last
    one to the final target. Without stops there is one leg, the decay.

    Attributes:
        lengths (PhaseLengths): Warm-up, decay (stops included) and total.
        stops (tuple[Stop, ...]): In order; empty for a single budget.
    """

    lengths: PhaseLengths
    stops: Tuple[Stop, ...] = ()

    def at(self, iteration: int) -> Phase:
        """Phase of an iteration, counted from 0; 'settle' at a stop."""
        phase = self.lengths.at(iteration)
        settles = any(
            stop.begin <= iteration < stop.end for stop in self.stops
        )
        return Phase('settle', phase.progress) if settles else phase

    def leg(self, iteration: int) -> Tuple[int, float]:
        """Leg of an iteration and the progress in it, in [0, 1]."""
        start = self.lengths.warmup
        for index, stop in enumerate(self.stops):
            if iteration < stop.begin:
                length = stop.begin - start
                return index, max(iteration - start, 0) / length
            if iteration < stop.end:
                return index, 1.0
            start = stop.end - 1  # its last iteration is at the milestone
        end = self.lengths.warmup + self.lengths.decay
        if not self.stops:
            return 0, self.lengths.at(iteration).progress
        gone = (iteration - start) / max(end - start, 1e-9)
        return len(self.stops), min(max(gone, 0.0), 1.0)

    def hardness(self, iteration: int) -> float:
        """How far depth masks are held hard at an iteration, in [0, 1].

        At a stop as in the refining phase: hard after a third of it.

        Args:
            iteration (int): Counted from 0.
        """
        for stop in self.stops:
            if stop.begin <= iteration < stop.end:
                third = max(math.ceil((stop.end - stop.begin) / 3), 1)
                return min((iteration + 1 - stop.begin) / third, 1.0)
        return self.lengths.hardness(iteration)

    def due(self, iteration: int) -> int:
        """Number of the stop that ends with an iteration; -1 if none."""
        ends = [stop.end - 1 for stop in self.stops]
        return ends.index(iteration) if iteration in ends else -1


def plan_stops(
    lengths: PhaseLengths, distances: Sequence[float], settle: float
) -> Timeline:
    """Divide a decay into legs and stops.

    Args:
        lengths (PhaseLengths): Of the whole search.
        distances (Sequence[float]): Of the legs, each > 0, in any unit: a
            leg gets its part of the time that is left for moving. One more
            than there are stops.
        settle (float): Iterations of a stop, >= 1.

    Raises:
        ValueError: If the stops leave less than one iteration for a leg.
    """
    number = len(distances) - 1
    wait = int(round(settle))
    moving = lengths.decay - number * wait
    if number and (wait < 1 or moving < number + 1):
        raise ValueError(
            f'{number} milestones that settle for {wait} iterations each do '
            f'not fit into a decay of {lengths.decay:g} iterations: lower '
            '`settle`, or search longer.'
        )
    stops, gone = [], 0.0
    for index, distance in enumerate(distances[:-1]):
        gone += moving * distance / sum(distances)
        begin = math.ceil(lengths.warmup + gone + index * wait)
        earliest = stops[-1].end + 1 if stops else lengths.warmup + 1
        begin = max(begin, math.ceil(earliest))
        stops.append(Stop(begin, begin + wait))
    return Timeline(lengths, tuple(stops))
