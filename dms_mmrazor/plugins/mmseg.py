"""mmsegmentation's Swin transformer."""

from mmseg.models.backbones.swin import (
    ShiftWindowMSA,
    SwinTransformer,
    WindowMSA,
)

from dms_mmrazor.layers.attention import AttentionKind
from dms_mmrazor.layers.block import register_block
from dms_mmrazor.layers.window_attention import (
    ShiftedWindowsKind,
    SwinKind,
    WindowsOfAnyDims,
)


class SlimWindowAttention(WindowsOfAnyDims, WindowMSA):
    """What ``WindowMSA`` becomes in an exported model."""


@register_block
class WindowAttentionKind(AttentionKind):
    """Attention within the windows of a Swin transformer."""

    types = (WindowMSA,)
    slim = SlimWindowAttention


@register_block
class ShiftedAttentionKind(ShiftedWindowsKind):
    """What shifts the windows of a Swin transformer."""

    types = (ShiftWindowMSA,)


@register_block
class SwinTransformerKind(SwinKind):
    """A Swin transformer."""

    types = (SwinTransformer,)
