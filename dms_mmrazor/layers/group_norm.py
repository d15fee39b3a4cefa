"""Group norms, of one group or of several."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.layers.dms_op import DMSOp
from dms_mmrazor.layers.kind import (
    PassingKind,
    kept_by_group,
    register_kind,
)
from dms_mmrazor.layers.layer_norm import masked_normalize
from dms_mmrazor.layers.own_layers import derive_masked, normalizes
from dms_mmrazor.registry import MODELS


@MODELS.register_module()
class DMSGroupNorm(DMSOp, nn.GroupNorm):
    """``nn.GroupNorm`` of a single group, with masked channels.

    Its statistics run over all channels and positions. Group norms of
    several groups lose whole groups instead and need no masks.
    """

    one_sided: ClassVar[bool] = True

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
        # Statistics run over channels and positions: each position of a
        # channel has its mask.
        every = mask.view(-1, 1).expand(-1, positions).reshape(-1)
        out = masked_normalize(x.flatten(1), every, self.eps).view_as(x)
        view = (-1, *[1] * (x.dim() - 2))
        if self.weight is not None:
            out = out * self.weight.view(view)
        if self.bias is not None:
            out = out + self.bias.view(view)
        # Under autocast torch's own norm gives single precision, too.
        return out if torch.is_autocast_enabled() else out.to(x.dtype)


@register_kind
class GroupNormKind(PassingKind):
    """Group norms.

    One of a single group counts as having none: like a layer norm it
    normalizes all channels together.
    """

    types = (nn.GroupNorm,)
    masked = {nn.GroupNorm: DMSGroupNorm}

    def find_masked(self, layer_type: type) -> Optional[type]:
        """Also of classes that compute like torch's, of one group."""
        found = super().find_masked(layer_type)
        if found is None and normalizes(layer_type, (2, 6, 4, 3)):
            return derive_masked(layer_type, DMSGroupNorm)
        return found

    def channels(self, layer: nn.Module, is_input: bool) -> int:
        """Number of channels."""
        return layer.num_channels

    def groups(self, layer: nn.Module) -> int:
        """Whole groups stay or go."""
        return layer.num_groups if layer.num_groups > 1 else 0

    def acts_alone(self, layer: nn.Module) -> bool:
        """Each group by itself."""
        return self.groups(layer) > 0

    def keep(self, layer: nn.Module, kept: Tensor) -> None:
        """Set its numbers of channels and groups.

        Raises:
            DMSError: If a part of a group would stay.
        """
        groups = self.groups(layer)
        if groups:
            each = kept_by_group(layer.num_channels, groups, kept).sum(dim=1)
            whole = layer.num_channels // groups
            if set(each.tolist()) - {0, whole}:
                raise DMSError(
                    'a group norm keeps or loses whole groups, here '
                    f'{sorted(set(each.tolist()))} of {whole} channels.'
                )
            layer.num_groups = int((each > 0).sum())
        layer.num_channels = len(kept)
