"""The masks along one side of a layer."""

from typing import Any, Optional

import torch
from mmrazor.models.mutables.mutable_channel import (
    BaseMutableChannel,
    MutableChannelContainer,
)
from torch import Tensor

from dms_mmrazor.models.mutables.masks import Places, beside
from dms_mmrazor.models.mutables.topk_mutables import DMSMutableChannel
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
    def places(self) -> Optional[Places]:
        """Where the masks of its positions are."""
        places = self._source[0].places
        if places is None:
            return None
        index = places.index.repeat_interleave(self.ratio, dim=1)
        return Places(places.table, index)

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
        places = self.places
        return None if places is None else places.read()

    @property
    def places(self) -> Optional[Places]:
        """Where the masks of all ranges are; 1 where nothing is searched."""
        found = {
            span: mutable.places
            for span, mutable in sorted(self.mutable_channels.items())
        }
        known = {span: p for span, p in found.items() if p is not None}
        if not known:
            return None
        parts, position = [], 0
        for (start, end), places in known.items():
            parts += [torch.full((1, start - position), -1), places.index]
            position = end
        parts.append(torch.full((1, self.num_channels - position), -1))
        table = next(iter(known.values())).table
        return Places(table, beside(parts))
