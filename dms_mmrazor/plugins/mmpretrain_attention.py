"""Attentions of mmpretrain's BEiT, Swin V2, DaViT and XCiT."""

from typing import ClassVar, Mapping, Optional, Tuple

from mmpretrain.models.backbones.davit import (
    ChannelAttention,
    DaViTWindowMSA,
)
from mmpretrain.models.backbones.xcit import XCA, ClassAttntion
from mmpretrain.models.utils.attention import BEiTAttention, WindowMSAV2
from torch import Tensor, nn

from dms_mmrazor.layers.any_dims import (
    AnyDims,
    AnyDimsKind,
    ClassAsks,
    CrossCovariance,
    CrossCovarianceKind,
    OncePerTokenKind,
)
from dms_mmrazor.layers.attention import split_heads
from dms_mmrazor.layers.block import register_block
from dms_mmrazor.layers.joined_bias import (
    BeitOfAnyDims,
    CallingQKV,
    CosinesKind,
    CosinesOfAnyDims,
    JoinedBiasKind,
)
from dms_mmrazor.layers.window_attention import masked_scores
from dms_mmrazor.registry import MODELS


class SharedBias(BeitOfAnyDims):
    """BEiT's, which calls a bias of all layers by this name."""

    def forward(
        self, x: Tensor, rel_pos_bias: Optional[Tensor] = None
    ) -> Tensor:
        """See :meth:`compute`."""
        return self.compute(x, rel_pos_bias)


class SlimBEiTAttention(SharedBias, BEiTAttention):
    """What BEiT's attention becomes in an exported model."""


class SlimWindowMSAV2(CosinesOfAnyDims, WindowMSAV2):
    """What the attention of Swin V2 becomes in an exported model."""


class SlimDaViTWindowMSA(AnyDims, DaViTWindowMSA):
    """What DaViT's attention within windows becomes in an exported model."""

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Attention within windows, as of :class:`WindowsOfAnyDims`."""
        query, key, value = split_heads(self, x)
        scores = (query * self.scale) @ key.transpose(-2, -1)
        weights = self.softmax(masked_scores(scores, mask))
        x = self.attn_drop(weights) @ value
        return self.project(x.transpose(1, 2).flatten(2))


class SlimChannelAttention(AnyDims, ChannelAttention):
    """What DaViT's attention among channels becomes."""

    def forward(self, x: Tensor) -> Tensor:
        """Attention among the dims of each head of [B, N, C]."""
        query, key, value = split_heads(self, x)
        scores = (key * self.scale).transpose(-2, -1) @ value
        x = query @ scores.softmax(dim=-1).transpose(-2, -1)
        return self.proj(x.transpose(1, 2).flatten(2))


class SlimCrossCovariance(CrossCovariance, XCA):
    """What the attention of XCiT becomes in an exported model."""


class SlimClassAttention(ClassAsks, ClassAttntion):
    """What the class attention of XCiT becomes in an exported model."""


@MODELS.register_module()
class DMSBEiTAttention(CallingQKV, SharedBias, BEiTAttention):
    """BEiT's attention, which calls its layers."""


@MODELS.register_module()
class DMSWindowMSAV2(CallingQKV, CosinesOfAnyDims, WindowMSAV2):
    """Swin V2's attention, which calls its layers."""


@register_block
class BEiTKind(JoinedBiasKind):
    """The attention of BEiT."""

    types = (BEiTAttention, DMSBEiTAttention)
    slim = SlimBEiTAttention
    calling: ClassVar[Mapping[type, type]] = {BEiTAttention: DMSBEiTAttention}


@register_block
class WindowMSAV2Kind(CosinesKind):
    """The attention of Swin V2."""

    types = (WindowMSAV2, DMSWindowMSAV2)
    slim = SlimWindowMSAV2
    calling: ClassVar[Mapping[type, type]] = {WindowMSAV2: DMSWindowMSAV2}

    def stock_calls(self, block: nn.Module) -> bool:
        """Never, even without a bias."""
        return False


@register_block
class DaViTWindowsKind(AnyDimsKind):
    """The attention of DaViT within windows, without position biases."""

    types = (DaViTWindowMSA,)
    slim = SlimDaViTWindowMSA


@register_block
class ChannelAttentionKind(CrossCovarianceKind):
    """The attention of DaViT among channels."""

    types = (ChannelAttention,)
    slim = SlimChannelAttention
    by_head: ClassVar[Tuple[str, ...]] = ()


@register_block
class XCAKind(CrossCovarianceKind):
    """Attention among the dims of a head, of XCiT."""

    types = (XCA,)
    slim = SlimCrossCovariance


@register_block
class ClassAttentionKind(OncePerTokenKind):
    """Attention of one token to all, of XCiT."""

    types = (ClassAttntion,)
    slim = SlimClassAttention
    input_layers: ClassVar[Tuple[str, ...]] = ('q', 'k', 'v')
