"""Where operators, elements and channels lie in flat buffers."""

from typing import Sequence

import torch
from torch import Tensor, nn

from .operators import Operator

__all__ = ['FlatLayout']


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
