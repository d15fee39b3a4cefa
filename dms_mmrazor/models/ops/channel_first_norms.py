"""Norms over channels that come before the positions, [B, C, ...]."""

from functools import lru_cache
from typing import Any, Dict, Optional, Set, Type

import torch
from torch import Tensor, nn

from dms_mmrazor.models.ops.dms_layer_norm import (
    DMSLayerNorm,
    masked_normalize,
)
from dms_mmrazor.models.ops.dms_op import DMSOp
from dms_mmrazor.registry import MODELS


@MODELS.register_module()
class DMSGroupNorm(nn.GroupNorm, DMSOp):
    """``nn.GroupNorm`` of a single group, with masked channels.

    Its statistics run over all channels and positions. Group norms of
    several groups lose whole groups instead and need no masks.
    """

    accepted_mutable_attrs: Set[str] = {'num_channels'}
    attr_mappings: Dict[str, str] = {
        'in_channels': 'num_channels',
        'out_channels': 'num_channels',
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_masks()

    def forward(self, input: Tensor) -> Tensor:
        """Normalize [B, C, ...]."""
        masks = self.masks()
        out = self._normalize(input, masks.inputs)
        if masks.depth is None:
            return out
        return out * masks.depth.to(out.dtype)

    def _normalize(self, x: Tensor, mask: Optional[Tensor]) -> Tensor:
        if mask is None:
            return super().forward(x)
        positions = x.shape[2:].numel()
        every = mask.view(-1, 1).expand(-1, positions).reshape(-1)
        out = masked_normalize(x.flatten(1), every, self.eps).view_as(x)
        view = (-1, *[1] * (x.dim() - 2))
        if self.weight is not None:
            out = out * self.weight.view(view) + self.bias.view(view)
        return out if torch.is_autocast_enabled() else out.to(x.dtype)


class ChannelFirst(DMSLayerNorm):
    """A layer norm of someone's own class that moves channels itself."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize [B, C, H, W]."""
        x = self.normalize(x.permute(0, 2, 3, 1))
        return x.permute(0, 3, 1, 2)


@lru_cache(maxsize=None)
def channel_first_norm(kind: type) -> Optional[Type[DMSOp]]:
    """The dynamic class of a layer norm over the channels of [B, C, H, W].

    Such are torchvision's and timm's ``LayerNorm2d``. Classes are told by
    what they compute, as there are many of them.

    Args:
        kind (type): Class of a layer.

    Returns:
        type, optional: ``None`` if it is something else.
    """
    if not issubclass(kind, nn.LayerNorm) or issubclass(kind, DMSOp):
        return None
    image = torch.randn(2, 6, 4, 3, generator=torch.Generator().manual_seed(0))
    try:
        given = kind(6)(image)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None  # other arguments, or another dimension
    channels = image.permute(0, 2, 3, 1)
    expected = nn.functional.layer_norm(channels, (6,), eps=kind(6).eps)
    same = isinstance(given, Tensor) and given.shape == image.shape
    if not same or not torch.allclose(
        given, expected.permute(0, 3, 1, 2), atol=1e-5
    ):
        return None
    return type(f'DMS{kind.__name__}', (ChannelFirst, kind), {})
