"""Where operators, elements and channels lie in flat buffers, and ranks."""

from typing import Dict, List, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .operators import Operator

__all__ = ['FlatLayout', 'SegmentRanks']

_SMALLEST_WIDTH = 16
"""Segments up to this length share one table: padding is cheap there."""


class FlatLayout(nn.Module):
    """Index constants of U operators with E elements and C channels.

    Holds no state: all buffers are made once from the operators.

    Attributes:
        lower (Tensor): Lower limits of the pruning ratios, shape [U].
        upper (Tensor): Upper limits of the pruning ratios, shape [U].
        size (Tensor): Channels of each operator, int64, shape [U].
        owner (Tensor): Operator of each element, int64, shape [E].
        count (Tensor): Elements of the owner, int64, shape [E].
        temperature (Tensor): Temperature of the owner, shape [E].
        width (Tensor): Channels of each element, int64, shape [E].
        shares_masks (bool): Whether any element has several channels.

    Args:
        operators (Sequence[Operator]): The operators, in order.
    """

    lower: Tensor
    upper: Tensor
    size: Tensor
    owner: Tensor
    count: Tensor
    temperature: Tensor
    width: Tensor
    element: Tensor
    first_channel: Tensor

    def __init__(self, operators: Sequence[Operator]) -> None:
        super().__init__()
        self.shares_masks = any(op.step > 1 for op in operators)
        counts = torch.tensor([op.num_elements for op in operators])
        owner = torch.arange(len(operators)).repeat_interleave(counts)
        width = torch.tensor(
            [size for op in operators for size in op.element_sizes]
        )
        constants = {
            # A pruning ratio says what is removed: what may be kept at most is
            # its lower limit.
            'lower': torch.tensor(
                [1 - op.most / op.num_elements for op in operators]
            ),
            'upper': torch.tensor(
                [1 - op.fewest / op.num_elements for op in operators]
            ),
            'size': torch.tensor([op.size for op in operators]),
            'owner': owner,
            'count': counts[owner],
            'temperature': torch.tensor([op.temperature for op in operators])[
                owner
            ],
            'width': width,
            'element': torch.arange(len(width)).repeat_interleave(width),
            'first_channel': width.cumsum(0) - width,
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def to_elements(self, values: Tensor) -> Tensor:
        """Repeat the values of operators for their elements.

        Args:
            values (Tensor): Shape [U].

        Returns:
            Tensor: Shape [E].
        """
        return values.index_select(0, self.owner)

    def to_channels(self, values: Tensor) -> Tensor:
        """Repeat the values of elements for their channels.

        Args:
            values (Tensor): Shape [E].

        Returns:
            Tensor: Shape [C].
        """
        # The usual case: every channel is an element, and nothing is copied.
        if not self.shares_masks:
            return values
        return values.index_select(0, self.element)

    def pick_channels(self, values: Tensor) -> Tensor:
        """The value of the first channel of each element.

        Args:
            values (Tensor): Shape [C].

        Returns:
            Tensor: Shape [E].

        Raises:
            ValueError: If the shape is wrong.
        """
        self._check_channels(values)
        if not self.shares_masks:
            return values
        return values.index_select(0, self.first_channel)

    def sum_channels(self, values: Tensor) -> Tensor:
        """Sum the values of the channels of each element.

        Args:
            values (Tensor): Shape [C].

        Returns:
            Tensor: Shape [E].

        Raises:
            ValueError: If the shape is wrong.
        """
        self._check_channels(values)
        if not self.shares_masks:
            return values
        return values.new_zeros(self.owner.shape).index_add_(
            0, self.element, values
        )

    def sum_elements(self, values: Tensor) -> Tensor:
        """Sum the values of the elements of each operator.

        Args:
            values (Tensor): Shape [E].

        Returns:
            Tensor: Shape [U].
        """
        return values.new_zeros(self.size.shape).index_add_(
            0, self.owner, values
        )

    def _check_channels(self, values: Tensor) -> None:
        if values.shape != self.element.shape:
            raise ValueError(
                'expected one value for each of the '
                f'{len(self.element)} channels, but got shape '
                f'{list(values.shape)}.'
            )


class SegmentRanks(nn.Module):
    """Rank the elements of every contiguous segment of a vector.

    Segments of similar length (up to the same power of two) are the rows of
    one padded table of element indices. The tables are made once; ranking
    is then one batched sort per table, a handful of tensor operations for
    any number of segments and no synchronization with the host. Sorting
    costs O(N log N), while comparing all pairs, as Eq. 2 of the paper is
    written, costs O(N^2).

    Args:
        counts (Sequence[int]): Length of each segment, each >= 1; E is
            their sum.
    """

    elements: Tensor
    ranks: Tensor

    def __init__(self, counts: Sequence[int]) -> None:
        super().__init__()
        tables = _index_tables(counts)
        self.shapes = tuple(tuple(table.shape) for table, _ in tables)
        self.total = sum(counts)
        constants = {
            'elements': [elements for elements, _ in tables],
            'ranks': [ranks for _, ranks in tables],
        }
        for name, parts in constants.items():
            flat = torch.cat([part.reshape(-1) for part in parts])
            self.register_buffer(name, flat, persistent=False)

    @torch.no_grad()
    def forward(self, values: Tensor) -> Tensor:
        """Rank the values of each segment.

        Args:
            values (Tensor): Values of all segments, shape [E].

        Returns:
            Tensor: int64 ranks, shape [E]: 0 for the smallest value of a
            segment of n elements, n - 1 for the largest. Of equal values
            the earlier one has the higher rank.
        """
        # Padding points at one extra slot. Its value and its position, at
        # the end of a row, put it behind all others in a stable sort.
        padded = F.pad(values, (0, 1), value=-float('inf'))
        lengths = [rows * width for rows, width in self.shapes]
        tables = zip(
            self.elements.split(lengths),
            padded.index_select(0, self.elements).split(lengths),
            self.shapes,
        )
        ordered = []
        for elements, scores, shape in tables:
            order = torch.sort(
                scores.view(shape), dim=1, descending=True, stable=True
            ).indices
            ordered.append(elements.view(shape).gather(1, order).view(-1))
        result = self.ranks.new_empty(self.total + 1)
        result.scatter_(0, torch.cat(ordered), self.ranks)
        return result[: self.total]


def _index_tables(counts: Sequence[int]) -> List[Tuple[Tensor, Tensor]]:
    """Group the segments by length.

    Returns:
        list[tuple[Tensor, Tensor]]: For each table its element indices and
        the rank of each column in descending order, both [rows, width].
    """
    total = sum(counts)
    ends = torch.tensor(counts).cumsum(0)
    buckets: Dict[int, List[int]] = {}
    for segment, count in enumerate(counts):
        width = max(count, _SMALLEST_WIDTH)
        buckets.setdefault((width - 1).bit_length(), []).append(segment)
    tables = []
    for _, members in sorted(buckets.items()):
        length = torch.tensor([[counts[segment]] for segment in members])
        start = ends[members].view(-1, 1) - length
        column = torch.arange(int(length.max()))
        elements = (start + column).masked_fill(column >= length, total)
        tables.append((elements, length - 1 - column))
    return tables
