"""timm's attentions with a bias for q and v beside the layer that gives them.

BEiT, EVA and Swin V2 hand the weight of ``qkv`` to a function, with a bias
that they join of two parameters and zeros. In a supernet they call the layer,
which has the masks; what is exported reads its weight, as the stock one does.
"""

import math
from typing import Any, ClassVar, Dict, List, Mapping, Optional, Tuple

import torch
from timm.layers import apply_rot_embed_cat
from timm.models.beit import Attention as BeitAttention
from timm.models.eva import EvaAttention
from timm.models.swin_transformer_v2 import WindowAttention
from torch import Tensor, nn
from torch.nn import functional as F

from dms_mmrazor.layers.attention import (
    HEADS,
    QK_DIMS,
    V_DIMS,
    AttentionKind,
    attention_kind,
    heads_of,
)
from dms_mmrazor.layers.block import Products, register_block
from dms_mmrazor.layers.dms_op import DMSOp
from dms_mmrazor.layers.kind import Call, select
from dms_mmrazor.layers.window_attention import position_bias
from dms_mmrazor.plugins.timm_attention import (
    AnyDims,
    added_scores,
    attend,
    weighted_values,
)
from dms_mmrazor.plugins.timm_attention_kinds import AnyDimsKind
from dms_mmrazor.registry import MODELS

_BIASES = ('q_bias', 'k_bias', 'v_bias')

_LARGEST_SCALE = math.log(100.0)
"""Of the logarithms of the scales of a cosine attention."""


class JoinedBias(AnyDims):
    """Such an attention with any numbers of heads and dims."""

    def heads(self, x: Tensor) -> List[Tensor]:
        """What belongs to each head of q, k and v, of [B, N, C].

        Returns:
            list[Tensor]: q [B, H, N, D], k [B, H, N, D] and v [B, H, N, E].
        """
        bias = None
        if self.q_bias is not None:
            bias = torch.cat([getattr(self, key) for key in _BIASES])
        sizes = attention_kind(self).sizes(self)
        dims = (sizes[key] for key in (HEADS, QK_DIMS, V_DIMS))
        return heads_of(self.apply_qkv(x, bias), *dims)

    def apply_qkv(self, x: Tensor, bias: Optional[Tensor]) -> Tensor:
        """Apply the weight of ``qkv`` without calling it."""
        return F.linear(x, self.qkv.weight, bias)

    def attend(
        self,
        parts: List[Tensor],
        bias: Optional[Tensor],
        is_causal: bool = False,
    ) -> Tensor:
        """What the attention gives of q, k and v, [B, N, C]."""
        if self.fused_attn:
            return self.project(attend(self, parts, bias, is_causal))
        bias = added_scores(bias, parts[0], is_causal)
        return self.project(weighted_values(self, parts, bias))


class CallingQKV(JoinedBias, DMSOp):
    """One in a supernet: its layers have the masks."""

    def apply_qkv(self, x: Tensor, bias: Optional[Tensor]) -> Tensor:
        """Call it with a bias, which gets the masks of its outputs, too."""
        # An instance's dictionary comes before its parameters.
        self.qkv.__dict__['bias'] = bias
        try:
            return self.qkv(x)
        finally:
            del self.qkv.__dict__['bias']


class BeitOfAnyDims(JoinedBias):
    """What BEiT's computes."""

    def forward(
        self, x: Tensor, shared_rel_pos_bias: Optional[Tensor] = None
    ) -> Tensor:
        """Self-attention of [B, N, C].

        Args:
            x (Tensor): [B, N, C].
            shared_rel_pos_bias (Tensor, optional): Added to the scores.
                Defaults to None.
        """
        bias = shared_rel_pos_bias
        if self.relative_position_bias_table is not None:
            own = position_bias(self, len(self.relative_position_index))[None]
            bias = own if bias is None else own + bias
        return self.attend(self.heads(x), bias)


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


class CosinesOfAnyDims(JoinedBias):
    """What the windows of Swin V2 compute."""

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Attention within windows.

        Args:
            x (Tensor): [windows * B, N, C].
            mask (Tensor, optional): [windows, N, N], added to the scores.
                Defaults to None.
        """
        query, key, value = self.heads(x)
        scale = self.logit_scale.clamp(max=_LARGEST_SCALE).exp()
        query = F.normalize(query, dim=-1) * scale
        scores = query @ F.normalize(key, dim=-1).transpose(-2, -1)
        scores = scores + self._position_bias()
        if mask is not None:
            scores = scores.unflatten(0, (-1, len(mask))) + mask[:, None]
            scores = scores.flatten(0, 1)
        x = self.attn_drop(self.softmax(scores)) @ value
        return self.project(x.transpose(1, 2).flatten(2))

    def _position_bias(self) -> Tensor:
        """What is added to the scores by relative position, [H, N, N]."""
        table = self.cpb_mlp(self.relative_coords_table).flatten(0, 2)
        bias = table[self.relative_position_index]
        return 16 * bias.sigmoid().movedim(-1, 0)


class SlimBeitAttention(BeitOfAnyDims, BeitAttention):
    """What BEiT's attention becomes in an exported model."""


class SlimEvaAttention(EvaOfAnyDims, EvaAttention):
    """What EVA's attention becomes in an exported model."""


class SlimCosineWindows(CosinesOfAnyDims, WindowAttention):
    """What the attention of Swin V2 becomes in an exported model."""


@MODELS.register_module()
class DMSBeitAttention(CallingQKV, BeitOfAnyDims, BeitAttention):
    """BEiT's attention, which calls its layers."""


@MODELS.register_module()
class DMSEvaAttention(CallingQKV, EvaOfAnyDims, EvaAttention):
    """EVA's attention, which calls its layers."""


@MODELS.register_module()
class DMSCosineWindows(CallingQKV, CosinesOfAnyDims, WindowAttention):
    """Swin V2's attention, which calls its layers."""


class JoinedBiasKind(AnyDimsKind):
    """An attention whose bias of q, k and v is beside their layer."""

    uncalled: ClassVar[Tuple[str, ...]] = ('qkv',)

    def applies(self, block: nn.Module) -> bool:
        """Not where q, k and v have layers of their own, or more follows."""
        whole = getattr(block, 'qkv', None) is not None
        return super().applies(block) and (
            whole and AttentionKind.applies(self, block)
        )

    def positions(self, block: nn.Module, call: Call) -> Dict[str, int]:
        """Pairs of tokens, and the tokens of a layer that is not called."""
        found = super().positions(block, call)
        stock = type(block) in self.calling
        called = block.q_bias is None or block.qkv_bias_separate
        if isinstance(block, DMSOp) or (stock and called):
            return found
        return {**found, 'qkv': call.args[0].shape[:2].numel()}

    def narrow_rows(self, block: nn.Module, rows: Tensor) -> None:
        """Keep some outputs of q, k and v, and their biases, in place."""
        super().narrow_rows(block, rows)
        start = 0
        for key in _BIASES if block.q_bias is not None else ():
            bias = getattr(block, key)
            end = start + len(bias)
            kept = rows[(rows >= start) & (rows < end)] - start
            setattr(block, key, select(bias, 0, kept))
            start = end

    def entries(self, sides: Any, name: str, key: str) -> Optional[Products]:
        """A bias has one for each dim of each head."""
        dims = {'q_bias': QK_DIMS, 'v_bias': V_DIMS}.get(key)
        if dims is None:
            return super().entries(sides, name, key)
        parts = [sides.dim(f'{name}.{part}', False) for part in (HEADS, dims)]
        return [(1.0, tuple(parts))]


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
class CosineWindowsKind(JoinedBiasKind):
    """The attention of Swin V2."""

    types = (WindowAttention, DMSCosineWindows)
    slim = SlimCosineWindows
    calling: ClassVar[Mapping[type, type]] = {
        WindowAttention: DMSCosineWindows
    }
    by_head: ClassVar[Tuple[str, ...]] = ('logit_scale', 'cpb_mlp.2')
    takes_cosines: ClassVar[bool] = True
