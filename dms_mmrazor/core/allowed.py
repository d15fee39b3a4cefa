"""The numbers of channels that a unit may have when it is exported."""

import math
from typing import List, NamedTuple, Optional, Sequence

__all__ = ['Unit', 'make_units']


class Unit(NamedTuple):
    """The allowed numbers of channels of one unit around its wish.

    Allowed are the multiples of ``divisor`` from ``minimum`` to
    ``maximum``, and ``maximum`` itself.

    Attributes:
        position (int): Index of the unit.
        wish (float): Wished number of channels, within the limits.
        minimum (int): Fewest channels, >= 0.
        maximum (int): Most channels, >= 1.
        divisor (int): What the numbers should be multiples of, >= 1.
        price (float): Task loss per log-resource. Defaults to 1.
    """

    position: int
    wish: float
    minimum: int
    maximum: int
    divisor: int
    price: float = 1.0

    @property
    def smallest(self) -> int:
        """The smallest allowed number."""
        return self.up(self.minimum)

    def up(self, number: float) -> int:
        """The smallest multiple >= ``number``, else the maximum."""
        # The full width is allowed although it may be no multiple: a layer of
        # 30 channels stays whole with divisor 8.
        multiple = math.ceil(number / self.divisor) * self.divisor
        return min(multiple, self.maximum)

    def nearest(self, number: float) -> int:
        """The allowed number nearest to ``number``; halves go up."""
        number = min(max(number, self.smallest), self.maximum)
        above = self.up(number)
        below = math.floor(number / self.divisor) * self.divisor
        below = max(below, self.smallest)
        return above if above - number <= number - below else below

    def preceding(self, number: int) -> int:
        """The allowed number before ``number``, else the smallest."""
        # Not `number - divisor`: the maximum may be no multiple.
        below = math.ceil(number / self.divisor - 1) * self.divisor
        return max(below, self.smallest)

    def following(self, number: int) -> int:
        """The allowed number after ``number``, else the maximum."""
        return self.up(number + 1)

    def shifted(self, shift: float) -> 'Unit':
        """With a pruning ratio lower by ``shift``, within the limits."""
        wish = self.wish + shift * self.maximum
        return self._replace(wish=min(max(wish, self.minimum), self.maximum))


def make_units(
    number: int,
    kept: Sequence[float],
    minimum: Sequence[int],
    maximum: Sequence[int],
    divisor: Sequence[int],
    prices: Optional[Sequence[float]] = None,
) -> List[Unit]:
    """Check the settings of all units.

    Args:
        number (int): Number of units.
        kept (Sequence[float]): Wishes; limited to minimum and maximum.
        minimum (Sequence[int]): Fewest channels of each unit.
        maximum (Sequence[int]): Most channels of each unit.
        divisor (Sequence[int]): Divisor of each unit.
        prices (Sequence[float], optional): Price of each unit. Defaults to
            None, 1 for all.

    Returns:
        list[Unit]: The units, in order.

    Raises:
        ValueError: If a length is wrong or a setting is outside its range,
            with the index of the unit.
    """
    columns = {
        'kept': kept,
        'minimum': minimum,
        'maximum': maximum,
        'divisor': divisor,
        'prices': [1.0] * number if prices is None else prices,
    }
    for name, column in columns.items():
        if len(column) != number:
            raise ValueError(
                f'{name} must have one entry for each of the '
                f'{number} units, but has {len(column)}.'
            )
    rows = zip(range(number), *columns.values())
    return [_make_unit(*row) for row in rows]


def _make_unit(
    position: int,
    wish: float,
    minimum: int,
    maximum: int,
    divisor: int,
    price: float,
) -> Unit:
    if not (0 <= minimum <= maximum and maximum >= 1 and divisor >= 1):
        raise ValueError(
            f'unit {position}: 0 <= minimum <= maximum, maximum >= 1 and '
            f'divisor >= 1 must hold, but got minimum={minimum}, '
            f'maximum={maximum} and divisor={divisor}.'
        )
    if not math.isfinite(wish):
        raise ValueError(
            f'unit {position}: kept is {wish}; the search diverged, lower '
            'the learning rate of the structure.'
        )
    wish = min(max(float(wish), minimum), maximum)
    if not math.isfinite(price):
        raise ValueError(f'unit {position}: its price is {price}.')
    limits = int(minimum), int(maximum), int(divisor)
    return Unit(position, wish, *limits, float(price))
