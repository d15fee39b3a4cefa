"""The masks along one side of a layer."""

from typing import Any, Optional

import torch
from mmrazor.models.mutables.mutable_channel import (
    BaseMutableChannel,
    MutableChannelContainer,
)
from torch import Tensor

from dms_mmrazor.models.mutables.dms_mutable_channel import DMSMutableChannel
from dms_mmrazor.registry import MODELS


class ExpandedMutableChannel(BaseMutableChannel):
    """A mutable of which each element stands for ``ratio`` positions.

    Such is the input of a linear layer after a flattened h × w feature map.

    Args:
        source (DMSMutableChannel): The mutable with N channels.
        ratio (int): Positions per channel.
    """

    def __init__(self, source: DMSMutableChannel, ratio: int) -> None:
        super().__init__(source.num_channels * ratio)
        # In a tuple, so that the source is not registered a second time.
        self._source = (source,)
        self.ratio = ratio

    @property
    def mask(self) -> Optional[Tensor]:
        """Mask [N * ratio] of the current step, or ``None``."""
        mask = self._source[0].mask
        if mask is None:
            return None
        # repeat_interleave may wait for the device to learn a size.
        return mask.view(-1, 1).expand(-1, self.ratio).reshape(-1)

    @property
    def current_mask(self) -> Tensor:
        """bool [N * ratio]: the positions that would be kept now."""
        return self._source[0].current_mask.repeat_interleave(self.ratio)

    @property
    def current_choice(self) -> int:
        """Number of kept positions."""
        return self._source[0].current_choice * self.ratio

    @current_choice.setter
    def current_choice(self, choice: int) -> None:
        self._source[0].current_choice = choice // self.ratio


@MODELS.register_module()
class DMSChannelContainer(MutableChannelContainer):
    """All mutables along the input (output) channels of one layer.

    Ranges that no unit searches count as kept.

    Args:
        num_channels (int): Number of channels on that side of the layer.
        **kwargs: Passed to mmrazor's ``MutableChannelContainer``.
    """

    def __init__(self, num_channels: int, **kwargs: Any) -> None:
        super().__init__(num_channels, **kwargs)

    @property
    def current_mask(self) -> Tensor:
        """bool [num_channels]: what an export now would keep."""
        mask = torch.ones(self.num_channels, dtype=torch.bool)
        for (start, end), mutable in self.mutable_channels.items():
            mask[start:end] = mutable.current_mask.cpu()
        return mask

    @property
    def mask(self) -> Optional[Tensor]:
        """Mask [num_channels] of the current step, or ``None``."""
        masks = [m.mask for m in self.mutable_channels.values()]
        known = [m for m in masks if m is not None]
        if not known:
            return None
        if len(masks) == 1 and len(known[0]) == self.num_channels:
            return known[0]
        return self._concatenate(known[0])

    def _concatenate(self, like: Tensor) -> Tensor:
        """Masks of all ranges in order, ones where nothing is searched."""
        parts, position = [], 0
        for (start, end), mutable in sorted(self.mutable_channels.items()):
            parts.append(like.new_ones(start - position))
            mask = mutable.mask
            parts.append(like.new_ones(end - start) if mask is None else mask)
            position = end
        parts.append(like.new_ones(self.num_channels - position))
        return torch.cat(parts)
