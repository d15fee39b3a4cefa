"""Dynamic counterparts of mmpretrain's layers, and its attention cut down.

Imported only when a model uses these layers: mmpretrain is optional.
"""

from typing import ClassVar, List, Tuple

import torch
from mmpretrain.models.utils.attention import (
    MultiheadAttention,
    ShiftWindowMSA,
    WindowMSA,
)
from mmpretrain.models.utils.norm import GRN, LayerNorm2d
from mmpretrain.structures import DataSample
from torch import Tensor, nn

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
from dms_mmrazor.layers.kind import (
    PassingKind,
    register_kind,
    register_masked,
)
from dms_mmrazor.layers.layer_norm import DMSLayerNorm
from dms_mmrazor.layers.window_attention import (
    WindowsOfAnyDims,
    register_swin,
)
from dms_mmrazor.plugins import mmpretrain_attention  # noqa: F401
from dms_mmrazor.registry import MODELS


# `nn.LayerNorm` stands among the direct bases because mmengine's
# initializers recognize a layer by the names of its class and direct bases.
@MODELS.register_module()
class DMSLayerNorm2d(LayerNorm2d, DMSLayerNorm, nn.LayerNorm):
    """``LayerNorm2d`` with masked channels."""

    def forward(self, x: Tensor, data_format: str = 'channel_first') -> Tensor:
        """Normalize [B, C, H, W], or [B, H, W, C] if 'channel_last'."""
        if data_format == 'channel_last':
            return self.normalize(x)
        x = self.normalize(x.permute(0, 2, 3, 1))
        return x.permute(0, 3, 1, 2).contiguous()


@MODELS.register_module()
class DMSGRN(DMSOp, GRN):
    """Global response normalization relative to the kept channels' mean."""

    one_sided: ClassVar[bool] = True

    def forward(self, x: Tensor, data_format: str = 'channel_first') -> Tensor:
        """Normalize [B, C, H, W], or [B, H, W, C] if 'channel_last'."""
        mask = self.masks().inputs
        if mask is None:
            return super().forward(x, data_format)
        if data_format == 'channel_first':
            return self._masked(x.permute(0, 2, 3, 1), mask).permute(
                0, 3, 1, 2
            )
        return self._masked(x, mask)

    def _masked(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalize [B, H, W, C] by the masked mean of the norms."""
        norms = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        mask = mask.to(norms.dtype)
        mean = (norms * mask).sum(-1, keepdim=True) / mask.sum()
        scaled = x * (norms / (mean + self.eps))
        return self.gamma * scaled + self.beta + x


register_masked(LayerNorm2d, DMSLayerNorm2d)


@register_kind
class GRNKind(PassingKind):
    """Global response normalization."""

    types = (GRN,)
    masked = {GRN: DMSGRN}
    vectors = ('gamma', 'beta')

    def channels(self, layer: nn.Module, is_input: bool) -> int:
        """Number of channels."""
        return layer.in_channels

    def keep(self, layer: nn.Module, kept: Tensor) -> None:
        """Set its number of channels."""
        layer.in_channels = len(kept)


class SlimAttention(HeadDims, MultiheadAttention):
    """``MultiheadAttention`` with head dims of q and k unlike those of v.

    What an attention becomes in an exported model: the same parameters
    (``qkv``, ``proj``, ``gamma1``) and the same attention kernel, which
    divides by the root of its own, kept head dim.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Self-attention of [B, N, C]."""
        query, key, value = split_heads(self, x)
        x = self.scaled_dot_product_attention(
            query,
            key,
            value,
            dropout_p=self.attn_drop if self.training else 0.0,
        )
        x = self.proj(x.transpose(1, 2).flatten(2))
        return self.out_drop(self.gamma1(self.proj_drop(x)))


class SlimWindowAttention(WindowsOfAnyDims, WindowMSA):
    """What ``WindowMSA`` becomes in an exported model."""


@register_block
class MultiheadAttentionKind(AttentionKind):
    """Self-attention of vision transformers."""

    types = (MultiheadAttention,)
    slim = SlimAttention


register_swin(
    WindowMSA,
    ShiftWindowMSA,
    'mmpretrain.models.backbones.swin_transformer.SwinTransformer',
    SlimWindowAttention,
)


@register_block
class Bottle2neckKind(EqualPartsKind):
    """A block of Res2Net."""

    names = ('mmpretrain.models.backbones.res2net.Bottle2neck',)
    number = 'width'
    reader = 'convs.0'


@register_block
class SplitTransposeKind(EqualPartsKind):
    """EdgeNeXt's encoder."""

    names = ('mmpretrain.models.backbones.edgenext.SDTAEncoder',)
    number = 'conv_channels'
    reader = 'conv_modules.0'


@register_block
class GatedConvolutionKind(BlockKind):
    """HorNet's recursive convolution, which splits by a list of numbers."""

    names = ('mmpretrain.models.backbones.hornet.gnConv',)

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """What each part is multiplied with has as many channels."""
        block.dims = [proj.in_channels for proj in block.projs]
        block.dims.append(block.proj_out.in_channels)


def demo_samples(model: nn.Module, size: Tuple[int, ...]) -> List[DataSample]:
    """The first class for each of two images.

    Args:
        model (nn.Module): Any classifier.
        size (tuple): (B, C, H, W).
    """
    return [DataSample().set_gt_label([0]) for _ in range(2)]
