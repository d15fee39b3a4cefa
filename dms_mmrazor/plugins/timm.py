"""timm's usual attentions, cut down, and its other layers and blocks.

The supernet keeps the stock modules, which call their ``qkv`` and ``proj``;
masks are folded into these. What is exported has head dims of q and k unlike
those of v, which the stock code does not allow. It divides the scores by the
root of the whole head dim, as the supernet does: that number stays.
"""

from typing import ClassVar, Optional

import torch
from timm.layers.blur_pool import BlurPool2d
from timm.layers.grn import GlobalResponseNorm
from timm.models.swin_transformer import WindowAttention
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from dms_mmrazor.layers.any_dims import (
    added_scores,
    attend,
    weighted_values,
)
from dms_mmrazor.layers.attention import (
    AttentionKind,
    HeadDims,
    split_heads,
)
from dms_mmrazor.layers.block import (
    BlockKind,
    EqualPartsKind,
    register_block,
)
from dms_mmrazor.layers.dms_op import DMSOp
from dms_mmrazor.layers.kind import PassingKind, register_kind
from dms_mmrazor.layers.window_attention import (
    WindowsOfAnyDims,
)
from dms_mmrazor.plugins import (  # noqa: F401
    timm_attention_kinds,
    timm_joined_bias,
    timm_splits,
    timm_std_conv,
)
from dms_mmrazor.registry import MODELS


class SlimAttention(HeadDims, Attention):
    """``Attention`` of timm's vision transformers with any dims of heads.

    The same parameters: ``qkv``, ``proj``, norms of q and k.
    """

    def forward(
        self,
        x: Tensor,
        attn_mask: Optional[Tensor] = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Self-attention of [B, N, C].

        Args:
            x (Tensor): [B, N, C].
            attn_mask (Tensor, optional): True for what is allowed, or a
                number to add. Defaults to None.
            is_causal (bool): No token sees a later one. Defaults to False.
        """
        query, key, value = split_heads(self, x)
        query, key = self.q_norm(query), self.k_norm(key)
        parts = [query, key, value]
        if self.fused_attn:
            x = attend(self, parts, attn_mask, is_causal)
        else:
            bias = added_scores(attn_mask, query, is_causal)
            x = weighted_values(self, parts, bias)
        return self.proj_drop(self.proj(x))


class SlimWindowAttention(WindowsOfAnyDims, WindowAttention):
    """``WindowAttention`` of timm's Swin with any dims of heads."""


@MODELS.register_module()
class DMSGlobalResponseNorm(GlobalResponseNorm, DMSOp):
    """``GlobalResponseNorm`` relative to the kept channels' mean."""

    one_sided: ClassVar[bool] = True

    @property
    def in_channels(self) -> int:
        """Number of channels."""
        return len(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize [B, H, W, C], or [B, C, H, W] if it is for these."""
        mask = self.masks().inputs
        if mask is None:
            return super().forward(x)
        norms = torch.norm(x, p=2, dim=self.spatial_dim, keepdim=True)
        mask = mask.to(norms.dtype)
        dim = self.channel_dim
        total = (norms * mask.view(self.wb_shape)).sum(dim, keepdim=True)
        scaled = x * (norms / (total / mask.sum() + self.eps))
        weight, bias = (
            p.view(self.wb_shape) for p in (self.weight, self.bias)
        )
        return x + bias + weight * scaled


@register_kind
class GlobalResponseNormKind(PassingKind):
    """Global response normalization."""

    types = (GlobalResponseNorm,)
    masked = {GlobalResponseNorm: DMSGlobalResponseNorm}

    def channels(self, layer: nn.Module, is_input: bool) -> int:
        """Number of channels."""
        return len(layer.weight)

    def keep(self, layer: nn.Module, kept: Tensor) -> None:
        """Nothing besides its vectors."""


@MODELS.register_module()
class DMSBlurPool2d(BlurPool2d, DMSOp):
    """``BlurPool2d``: it acts on each channel alone, and needs no mask."""

    one_sided: ClassVar[bool] = True


@register_kind
class BlurPoolKind(PassingKind):
    """A blur before subsampling: one fixed filter, once for each channel."""

    types = (BlurPool2d,)
    masked = {BlurPool2d: DMSBlurPool2d}
    vectors = ('filt',)

    def applies(self, layer: nn.Module) -> bool:
        """Not where it takes any number of channels."""
        return layer.channels is not None

    def channels(self, layer: nn.Module, is_input: bool) -> int:
        """Number of channels."""
        return layer.channels

    def keep(self, layer: nn.Module, kept: Tensor) -> None:
        """As many filters."""
        layer.channels = len(kept)


@register_block
class VisionAttentionKind(AttentionKind):
    """Self-attention of vision transformers."""

    types = (Attention,)
    slim = SlimAttention


@register_block
class WindowAttentionKind(AttentionKind):
    """Attention within the windows of a Swin transformer."""

    types = (WindowAttention,)
    slim = SlimWindowAttention


@register_block
class ScaleKind(BlockKind):
    """A factor of each channel, which knows the shape that it has."""

    names = ('timm.models.metaformer.Scale',)

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """That shape."""
        block.shape = (len(block.scale), *block.shape[1:])


@register_block
class PositionsKind(BlockKind):
    """An encoding of positions: one layer reads their sines and cosines."""

    names = (
        'timm.models.edgenext.PositionalEncodingFourier',
        'timm.models.xcit.PositionalEncodingFourier',
    )
    opaque: ClassVar[bool] = True
    source: ClassVar[Optional[str]] = 'token_projection'


@register_block
class CrossStageKind(BlockKind):
    """A cross stage partial layer, which splits into halves by a number."""

    names = (
        'timm.models.cspnet.CrossStage',
        'timm.models.cspnet.CrossStage3',
    )

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """The channels of both halves, which keep the same ones."""
        block.expand_chs = block.conv_exp.conv.out_channels


@register_block
class PartialShortcutKind(BlockKind):
    """A block of ReXNet, which adds its input to its first channels."""

    names = ('timm.models.rexnet.LinearBottleneck',)

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """How many these are: what its first convolution reads."""
        first = block.conv_exp or block.conv_dw
        block.in_channels = first.conv.in_channels


@register_block
class MetaNeXtKind(BlockKind):
    """A block of InceptionNeXt, whose mixer splits its channels."""

    names = ('timm.models.inception_next.MetaNeXtBlock',)

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """What each convolution of the mixer reads, and what passes it."""
        mixer = block.token_mixer
        convs = mixer.dwconv_hw, mixer.dwconv_w, mixer.dwconv_h
        parts = [conv.in_channels for conv in convs]
        passed = block.norm.num_features - sum(parts)
        mixer.split_indexes = passed, *parts


@register_block
class Bottle2neckKind(EqualPartsKind):
    """A block of Res2Net."""

    names = (
        'timm.models.res2net.Bottle2neck',
        'timm.models.dla.DlaBottle2neck',
    )
    number = 'width'
    reader = 'convs.0'
