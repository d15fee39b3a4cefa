"""Lengths of the phases of a search, as users write them."""

import math
from typing import NamedTuple, Optional, Sequence, Tuple, Union

from .schedule import Phase, phase_at

__all__ = [
    'Duration',
    'PhaseLengths',
    'check_durations',
    'iterations_of',
    'phase_lengths',
]

Duration = Union[int, float, str]
"""A portion of the training in [0, 1], '10%', '3 epochs', '500 iterations'."""

_UNITS = ('epoch', 'epochs', 'iter', 'iters', 'iteration', 'iterations')


class PhaseLengths(NamedTuple):
    """Phases of a search in iterations; the rest after them refines.

    Attributes:
        warmup (float): Iterations without a constraint.
        decay (float): Iterations in which the target falls.
        total (int): Iterations of the search.
    """

    warmup: float
    decay: float
    total: int

    def at(self, iteration: int) -> Phase:
        """Phase of an iteration, counted from 0."""
        progress = min(iteration, self.total)
        return phase_at(progress, self.warmup, self.decay, self.total)

    def hardness(self, iteration: int) -> float:
        """How far depth masks are held hard at an iteration.

        A block that is half kept when the refining phase begins becomes a
        whole one or none evenly over the first third of that phase, so that
        the widths can follow; the rest refines with the depth constant
        (appendix A.1.2, where the transition is not described).

        Args:
            iteration (int): Counted from 0.

        Returns:
            float: 0 before the refining phase, in (0, 1] in it: 0 for the
            soft masks at its beginning, 1 for hard masks.
        """
        gone = iteration + 1 - math.ceil(self.warmup + self.decay)
        return min(max(gone, 0) / self.iterations_to_hold(), 1.0)

    def iterations_to_hold(self) -> int:
        """Iterations in which depth masks become hard, at least 1."""
        refining = self.total - math.ceil(self.warmup + self.decay)
        return max(math.ceil(refining / 3), 1)


def phase_lengths(
    warmup: Duration,
    decay: Duration,
    total: int,
    per_epoch: Optional[float] = None,
) -> PhaseLengths:
    """Turn what users write into iterations.

    Args:
        warmup (int | float | str): A portion of the training in [0, 1], or
            a text such as '3 epochs' or '500 iterations'.
        decay (int | float | str): The same, > 0.
        total (int): Iterations of the training, >= 1.
        per_epoch (float, optional): Iterations of an epoch. Defaults to
            None, the training has no epochs.

    Raises:
        ValueError: If one cannot be read, or both exceed the training.
    """
    lengths = [
        iterations_of(key, value, total, per_epoch)
        for key, value in (('warmup', warmup), ('decay', decay))
    ]
    if not (lengths[1] > 0 and sum(lengths) <= total * (1 + 1e-9)):
        raise ValueError(
            'warmup >= 0, decay > 0 and warmup + decay within the training '
            f'must hold, but got warmup={warmup} and decay={decay}'
            + _in_iterations(lengths, total)
        )
    return PhaseLengths(*lengths, total)


def check_durations(warmup: Duration, decay: Duration) -> None:
    """Check what can be checked before the length of a training is known.

    Args:
        warmup (int | float | str): See :func:`phase_lengths`.
        decay (int | float | str): See :func:`phase_lengths`.

    Raises:
        ValueError: If one cannot be read, or two portions exceed 1.
    """
    warmup, decay = _as_portion(warmup), _as_portion(decay)
    values = {'warmup': warmup, 'decay': decay}
    for key, value in values.items():
        if isinstance(value, str):
            _parse(key, value)
        else:
            iterations_of(key, value, 1, None)
    if not any(isinstance(value, str) for value in values.values()):
        phase_lengths(warmup, decay, 1)


def _in_iterations(lengths: Sequence[float], total: int) -> str:
    if total == 1:
        return '.'
    counts = ' and '.join(f'{length:g}' for length in lengths)
    return f': {counts} of {total} iterations.'


def iterations_of(
    key: str, value: Duration, total: int, per_epoch: Optional[float] = None
) -> float:
    """What a user writes for a part of a training, in iterations.

    Args:
        key (str): Name of the setting, for messages.
        value (int | float | str): See :func:`phase_lengths`.
        total (int): Iterations of the training, >= 1.
        per_epoch (float, optional): Iterations of an epoch. Defaults to
            None, the training has no epochs.

    Raises:
        ValueError: If it cannot be read.
    """
    value = _as_portion(value)
    if isinstance(value, str):
        number, unit = _parse(key, value)
        if not unit.startswith('epoch'):
            return float(number)
        if per_epoch is None:
            raise ValueError(
                f'`{key}` is {value!r}, but the training has no epochs (a '
                "loop of one's own, `train_cfg.by_epoch=False`); write "
                "'500 iterations' or a portion of it."
            )
        return number * per_epoch
    is_number = isinstance(value, (int, float)) and value is not True
    if not (is_number and 0 <= value <= 1):
        raise ValueError(_wanted(key, value))
    # The nearest iteration, if only a rounding error is between them.
    return round(value * total, 6)


def _as_portion(value: Duration) -> Duration:
    """'10%' as 0.1; anything else as it is."""
    if isinstance(value, str) and value.strip().endswith('%'):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            return value
    return value


def _parse(key: str, value: str) -> Tuple[int, str]:
    text = value.strip().lower()
    unit = text.lstrip('0123456789')
    number = text[: len(text) - len(unit)]
    if not number or unit.strip() not in _UNITS:
        raise ValueError(_wanted(key, value))
    return int(number), unit.strip()


def _wanted(key: str, value: object) -> str:
    return (
        f'`{key}` must be a portion of the training in [0, 1] or a text such '
        f"as '10%', '3 epochs' or '500 iterations', got {value!r}."
    )
