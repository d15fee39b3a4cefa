"""Ranks inside many segments of one vector, without a loop over them."""

from typing import Dict, List, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ['SegmentRanks']

_SMALLEST_WIDTH = 16
"""Segments up to this length share one table: padding is cheap there."""


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
