"""timm's attentions with a bias for q and v beside the layer that gives them.

Those of BEiT, EVA and Swin V2.
"""

from typing import ClassVar, Mapping, Optional

import torch
from timm.layers import apply_rot_embed_cat
from timm.models.beit import Attention as BeitAttention
from timm.models.eva import EvaAttention
from timm.models.swin_transformer_v2 import WindowAttention
from torch import Tensor, nn

from dms_mmrazor.layers.attention import QK_DIMS
from dms_mmrazor.layers.block import register_block
from dms_mmrazor.layers.joined_bias import (
    BeitOfAnyDims,
    CallingQKV,
    CosinesKind,
    CosinesOfAnyDims,
    JoinedBias,
    JoinedBiasKind,
)
from dms_mmrazor.registry import MODELS


class SharedBias(BeitOfAnyDims):
    """BEiT's, which calls a bias of all layers by this name."""

    def forward(
        self, x: Tensor, shared_rel_pos_bias: Optional[Tensor] = None
    ) -> Tensor:
        """See :meth:`compute`."""
        return self.compute(x, shared_rel_pos_bias)


class EvaOfAnyDims(JoinedBias):
    """What EVA's computes."""

    def forward(
        self,
        x: Tensor,
        rope: Optional[Tensor] = None,
        attn_mask: Optional[Tensor] = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Self-attention of [B, N, C].

        Args:
            x (Tensor): [B, N, C].
            rope (Tensor, optional): Sines and cosines of the positions.
                Defaults to None.
            attn_mask (Tensor, optional): True for what is allowed, or a
                number to add. Defaults to None.
            is_causal (bool): No token sees a later one. Defaults to False.
        """
        query, key, value = self.heads(x)
        query, key = (
            self._rotate(part, rope).type_as(value)
            for part in (self.q_norm(query), self.k_norm(key))
        )
        return self.attend([query, key, value], attn_mask, is_causal)

    def _rotate(self, part: Tensor, rope: Optional[Tensor]) -> Tensor:
        """Turn pairs of dims [B, H, N, D] by their positions."""
        if rope is None:
            return part
        first = self.num_prefix_tokens
        half = getattr(self, 'rotate_half', False)
        turned = apply_rot_embed_cat(part[:, :, first:], rope, half=half)
        return torch.cat([part[:, :, :first], turned], dim=2)


class SlimBeitAttention(SharedBias, BeitAttention):
    """What BEiT's attention becomes in an exported model."""


class SlimEvaAttention(EvaOfAnyDims, EvaAttention):
    """What EVA's attention becomes in an exported model."""


class SlimCosineWindows(CosinesOfAnyDims, WindowAttention):
    """What the attention of Swin V2 becomes in an exported model."""


@MODELS.register_module()
class DMSBeitAttention(CallingQKV, SharedBias, BeitAttention):
    """BEiT's attention, which calls its layers."""


@MODELS.register_module()
class DMSEvaAttention(CallingQKV, EvaOfAnyDims, EvaAttention):
    """EVA's attention, which calls its layers."""


@MODELS.register_module()
class DMSCosineWindows(CallingQKV, CosinesOfAnyDims, WindowAttention):
    """Swin V2's attention, which calls its layers."""


@register_block
class BeitKind(JoinedBiasKind):
    """The attention of BEiT."""

    types = (BeitAttention, DMSBeitAttention)
    slim = SlimBeitAttention
    calling: ClassVar[Mapping[type, type]] = {BeitAttention: DMSBeitAttention}


@register_block
class EvaKind(JoinedBiasKind):
    """The attention of EVA."""

    types = (EvaAttention, DMSEvaAttention)
    slim = SlimEvaAttention
    calling: ClassVar[Mapping[type, type]] = {EvaAttention: DMSEvaAttention}

    def held(self, block: nn.Module, dim: str) -> str:
        """Dims that are turned in pairs."""
        if dim == QK_DIMS:
            return 'positions rotate the dims of q and k'
        return ''


@register_block
class CosineWindowsKind(CosinesKind):
    """The attention of Swin V2."""

    types = (WindowAttention, DMSCosineWindows)
    slim = SlimCosineWindows
    calling: ClassVar[Mapping[type, type]] = {
        WindowAttention: DMSCosineWindows
    }
