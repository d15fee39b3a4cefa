"""Attentions of mmpretrain's BEiT, Swin V2 and XCiT."""

from typing import ClassVar, Mapping, Optional, Tuple

from mmpretrain.models.backbones.xcit import XCA, ClassAttntion
from mmpretrain.models.utils.attention import BEiTAttention, WindowMSAV2
from torch import Tensor, nn

from dms_mmrazor.layers.any_dims import (
    ClassAsks,
    CrossCovariance,
    CrossCovarianceKind,
    OncePerTokenKind,
)
from dms_mmrazor.layers.block import register_block
from dms_mmrazor.layers.joined_bias import (
    BeitOfAnyDims,
    CallingQKV,
    CosinesKind,
    CosinesOfAnyDims,
    JoinedBiasKind,
)
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
