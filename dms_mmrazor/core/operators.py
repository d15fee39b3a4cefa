"""What one top-k operator may do, checked and counted in elements."""

from itertools import accumulate
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

__all__ = [
    'Operator',
    'check_index',
    'check_leaders',
    'describe_operators',
    'elements_for',
]


class Operator(NamedTuple):
    """The search space of one structural hyperparameter.

    Contiguous channels of a step share one importance and one mask
    (appendix A.1.1); such a group is an element. The last element may be
    smaller than the others.

    Attributes:
        size (int): Number of channels.
        step (int): Channels of one element.
        temperature (float): Temperature of the soft mask.
        fewest (int): Fewest elements that may be kept.
        most (int): Most elements that may be kept.
    """

    size: int
    step: int
    temperature: float
    fewest: int
    most: int

    @property
    def num_elements(self) -> int:
        """Number of elements."""
        return -(-self.size // self.step)

    @property
    def element_sizes(self) -> List[int]:
        """Number of channels of each element."""
        last = self.size - (self.num_elements - 1) * self.step
        return [self.step] * (self.num_elements - 1) + [last]


def describe_operators(
    sizes: Sequence[int],
    temperatures: Optional[Sequence[Optional[float]]] = None,
    steps: Optional[Sequence[int]] = None,
    min_kept: Optional[Sequence[int]] = None,
    max_kept: Optional[Sequence[int]] = None,
) -> Tuple[Operator, ...]:
    """Check the settings of all operators and fill in the defaults.

    Args:
        sizes (Sequence[int]): Channels of each operator.
        temperatures (Sequence[float | None], optional): None stands for
            the number of elements.
        steps (Sequence[int], optional): None stands for 1 everywhere.
        min_kept (Sequence[int], optional): Fewest channels; None stands
            for 1 everywhere.
        max_kept (Sequence[int], optional): Most channels; None stands for
            all of them.

    Returns:
        tuple[Operator, ...]: One description per operator.

    Raises:
        ValueError: If a setting is outside its range, with the index of
            the operator.
    """
    number = len(sizes)
    if number == 0:
        raise ValueError('sizes is empty; at least one operator is needed.')
    columns = {
        'temperatures': [None] * number
        if temperatures is None
        else temperatures,
        'steps': [1] * number if steps is None else steps,
        'min_kept': [1] * number if min_kept is None else min_kept,
        'max_kept': sizes if max_kept is None else max_kept,
    }
    for name, column in columns.items():
        if len(column) != number:
            raise ValueError(
                f'{name} must have one entry for each of the '
                f'{number} operators, but has {len(column)}.'
            )
    rows = zip(sizes, *columns.values())
    return tuple(_describe(index, *row) for index, row in enumerate(rows))


def check_index(index: int, number: int) -> None:
    """Check that an index names one of ``number`` operators.

    Args:
        index (int): The index.
        number (int): Number of operators.

    Raises:
        ValueError: If it does not; a bool is a mask, not an index.
    """
    if isinstance(index, bool) or not 0 <= index < number:
        raise ValueError(
            f'operators are named by indices 0 to {number - 1}, but got '
            f'{index}.'
        )


def check_leaders(leaders: Mapping[int, int], number: int) -> Dict[int, int]:
    """Check which operators follow which: leaders by follower.

    Raises:
        ValueError: If one is no operator, or follows another itself.
    """
    for follower, leader in leaders.items():
        check_index(follower, number)
        check_index(leader, number)
        if leader in leaders or leader == follower:
            raise ValueError(
                f'operator {follower} cannot follow operator {leader}, which '
                'follows another one.'
            )
    return dict(leaders)


def elements_for(
    index: int, operator: Operator, kept: int, widths: Sequence[int]
) -> int:
    """How many of the most important elements have ``kept`` channels.

    Args:
        index (int): Index of the operator, for the message.
        operator (Operator): Its description.
        kept (int): Channels to keep.
        widths (Sequence[int]): Channels of its elements, the most
            important one first.

    Returns:
        int: Number of elements, within the limits.

    Raises:
        ValueError: If no number of elements within the limits has exactly
            ``kept`` channels.
    """
    reachable = [0] + list(accumulate(widths))
    allowed = reachable[operator.fewest : operator.most + 1]
    if kept not in allowed:
        near = sorted(allowed, key=lambda number: abs(number - kept))[:2]
        raise ValueError(
            f'operator {index} cannot keep exactly {kept} of its '
            f'{operator.size} channels (step {operator.step}, limits '
            f'{allowed[0]} to {allowed[-1]}); choose e.g. '
            f'{" or ".join(map(str, sorted(near)))}.'
        )
    return reachable.index(kept)


def _describe(
    index: int,
    size: int,
    temperature: Optional[float],
    step: int,
    min_kept: int,
    max_kept: int,
) -> Operator:
    if size < 1 or step < 1:
        raise ValueError(
            f'operator {index}: size and step must be at least '
            f'1, but got size={size} and step={step}.'
        )
    if not 0 <= min_kept <= max_kept <= size:
        raise ValueError(
            f'operator {index}: 0 <= min_kept <= max_kept <= size must '
            f'hold, but got min_kept={min_kept}, max_kept={max_kept} and '
            f'size={size}.'
        )
    operator = Operator(int(size), int(step), 1.0, 0, 0)
    fewest, most = _element_limits(operator, min_kept, max_kept)
    if fewest > most:
        raise ValueError(
            f'operator {index}: no multiple of step={step} lies between '
            f'min_kept={min_kept} and max_kept={max_kept}; widen them.'
        )
    temperature = operator.num_elements if temperature is None else temperature
    if not temperature > 0:
        raise ValueError(
            f'operator {index}: temperature must be positive, '
            f'but got {temperature}.'
        )
    return operator._replace(
        temperature=float(temperature), fewest=fewest, most=most
    )


def _element_limits(
    operator: Operator, min_kept: int, max_kept: int
) -> Tuple[int, int]:
    """Limits in elements that hold whichever elements are kept."""
    size, step = operator.size, operator.step
    last = operator.element_sizes[-1]
    # With few channels the worst case is that the small last element is
    # among the kept ones; with many, that it is not.
    fewest = 0 if min_kept == 0 else 1 + max(0, -(-(min_kept - last) // step))
    most = operator.num_elements if max_kept == size else max_kept // step
    return fewest, min(most, operator.num_elements)
