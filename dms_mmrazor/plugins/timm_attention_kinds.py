"""How the attentions of timm's other families are searched.

Those of PVT, Twins, CaiT, CrossViT, XCiT and VOLO: heads and head dims, but
for those that something mixes.
"""

from typing import Any, ClassVar, List, Tuple

from timm.models.cait import ClassAttn, TalkingHeadAttn
from timm.models.crossvit import CrossAttention
from timm.models.pvt_v2 import Attention as PyramidAttention
from timm.models.twins import GlobalSubSampleAttn, LocallyGroupedAttn
from timm.models.volo import Attention as MapAttention
from timm.models.volo import ClassAttention, OutlookAttention
from timm.models.xcit import XCA
from torch import nn

from dms_mmrazor.layers.any_dims import (
    AnyDimsKind,
    CrossCovarianceKind,
    OncePerTokenKind,
)
from dms_mmrazor.layers.attention import HEADS
from dms_mmrazor.layers.block import BlockKind, register_block
from dms_mmrazor.plugins.timm_attention import (
    SlimClassAttention,
    SlimClassAttn,
    SlimCrossAttention,
    SlimCrossCovariance,
    SlimGroupedAttention,
    SlimMapAttention,
    SlimOutlook,
    SlimPyramidAttention,
    SlimSubSampleAttention,
    SlimTalkingHeads,
)


@register_block
class FewerKeysKind(AnyDimsKind):
    """Attention whose keys and values are of a smaller feature map."""

    types = (PyramidAttention,)
    slim = SlimPyramidAttention
    input_layers: ClassVar[Tuple[str, ...]] = ('q', 'kv')

    def paths(self, block: nn.Module) -> List[Tuple[str, ...]]:
        """A convolution makes the map smaller, norm and activation follow."""
        steps = ('sr', 'norm', 'act')
        smaller = [s for s in steps if getattr(block, s, None) is not None]
        return [('q',), (*smaller, 'kv')]

    def pairs(self, block: nn.Module, args: Tuple[Any, ...]) -> int:
        """Positions times those of the smaller map, of all images."""
        pool = getattr(block, 'pool', None)
        x, (height, width) = args
        if pool is not None:
            height = width = pool.output_size
        down, beside = (1, 1) if block.sr is None else block.sr.stride
        keys = (height // down) * (width // beside)
        return x.shape[0] * x.shape[1] * keys


@register_block
class SubSampleKind(FewerKeysKind):
    """The same of Twins."""

    types = (GlobalSubSampleAttn,)
    slim = SlimSubSampleAttention


@register_block
class GroupedKind(AnyDimsKind):
    """Attention within the windows of Twins."""

    types = (LocallyGroupedAttn,)
    slim = SlimGroupedAttention
    pads: ClassVar[bool] = True

    def pairs(self, block: nn.Module, args: Tuple[Any, ...]) -> int:
        """Pairs of positions in all windows."""
        x, size = args
        down, beside = (-(-side // block.ws) for side in size)
        return x.shape[0] * down * beside * block.ws**4


@register_block
class ClassAttnKind(OncePerTokenKind):
    """Attention of one token to all, of CaiT and XCiT."""

    types = (ClassAttn,)
    slim = SlimClassAttn
    input_layers: ClassVar[Tuple[str, ...]] = ('q', 'k', 'v')


@register_block
class CrossAttentionKind(OncePerTokenKind):
    """That of CrossViT."""

    types = (CrossAttention,)
    slim = SlimCrossAttention
    input_layers: ClassVar[Tuple[str, ...]] = ('wq', 'wk', 'wv')


@register_block
class ClassAttentionKind(OncePerTokenKind):
    """That of VOLO."""

    types = (ClassAttention,)
    slim = SlimClassAttention
    input_layers: ClassVar[Tuple[str, ...]] = ('q', 'kv')


@register_block
class TalkingHeadsKind(AnyDimsKind):
    """Attention whose heads are mixed by layers of their own."""

    types = (TalkingHeadAttn,)
    slim = SlimTalkingHeads

    def held(self, block: nn.Module, dim: str) -> str:
        """The heads: two layers mix them."""
        return 'linear layers mix the heads' if dim == HEADS else ''


@register_block
class XCAKind(CrossCovarianceKind):
    """Attention among the dims of a head, of XCiT."""

    types = (XCA,)
    slim = SlimCrossCovariance


@register_block
class MapKind(AnyDimsKind):
    """Self-attention of all positions of a feature map."""

    types = (MapAttention,)
    slim = SlimMapAttention

    def pairs(self, block: nn.Module, args: Tuple[Any, ...]) -> int:
        """Pairs of positions, of all images."""
        images, height, width, _ = args[0].shape
        return images * (height * width) ** 2


@register_block
class OutlookKind(BlockKind):
    """The outlook attention of VOLO, whose heads stay."""

    types = (OutlookAttention,)

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """A stock one is as wide inside as what it reads."""
        whole = block.v.in_features == block.v.out_features
        if type(block) is OutlookAttention and not whole:
            block.__class__ = SlimOutlook
