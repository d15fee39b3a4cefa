"""The mutable of a width unit."""

from typing import Any, Optional, Union

import torch
from mmrazor.models.mutables.mutable_channel import BaseMutableChannel
from torch import Tensor

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutables.masks import Places, TopkOperator
from dms_mmrazor.registry import MODELS


@MODELS.register_module()
class DMSMutableChannel(BaseMutableChannel):
    """Channels chosen by a differentiable top-k.

    Args:
        num_channels (int): Number of channels N.
        **kwargs: Passed to mmrazor's ``BaseMutableChannel``.
    """

    def __init__(self, num_channels: int, **kwargs: Any) -> None:
        super().__init__(num_channels, **kwargs)
        self.operator: Optional[TopkOperator] = None

    @property
    def mask(self) -> Optional[Tensor]:
        """Mask [N] of the current step; ``None``: all are kept."""
        return None if self.operator is None else self.operator.mask

    @property
    def places(self) -> Optional[Places]:
        """Where its masks are; ``None``: nothing searches them."""
        return None if self.operator is None else self.operator.places

    @property
    def current_mask(self) -> Tensor:
        """bool [N]: the channels that an export now would keep."""
        if self.operator is None:
            return torch.ones(self.num_channels, dtype=torch.bool)
        return self.operator.hard_mask

    @property
    def current_choice(self) -> int:
        """Number of kept channels."""
        if self.operator is None:
            return self.num_channels
        return self.operator.kept

    @current_choice.setter
    def current_choice(self, choice: Union[int, float]) -> None:
        kept = as_kept(choice, self.num_channels)
        if self.operator is not None:
            self.operator.set_kept(kept)
        elif kept != self.num_channels:
            raise DMSError(
                f'{self.name or "this mutable"} cannot keep {kept} of '
                f'{self.num_channels} channels: it is not searched.'
            )

    def num_choices(self) -> int:
        """Number of widths: 1 … N."""
        return self.num_channels


def as_kept(choice: Union[int, float], total: int) -> int:
    """A choice as MMRazor writes it: an int counts, a float is a ratio.

    Raises:
        DMSError: If the choice is not in 1 … ``total`` or (0, 1].
    """
    kept = choice
    if isinstance(choice, float):
        kept = max(1, round(choice * total)) if 0 < choice <= 1 else -1
    if not 0 <= kept <= total:
        raise DMSError(
            f'choice {choice} must be an int in 1 … {total} or a float in '
            f'(0, 1].'
        )
    return int(kept)
