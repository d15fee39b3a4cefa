"""mmsegmentation's Swin transformer."""

from typing import ClassVar, Optional

from mmseg.models.backbones.swin import (
    ShiftWindowMSA,
    SwinTransformer,
    WindowMSA,
)
from torch import Tensor, nn

from dms_mmrazor.layers.attention import (
    AttentionKind,
    attend_in_windows,
    is_attention,
)
from dms_mmrazor.layers.block import BlockKind, register_block


class SlimWindowAttention(WindowMSA):
    """``WindowMSA`` with head dims of q and k unlike those of v.

    The same parameters (``qkv``, ``proj``, the table of position biases).

    Attributes:
        num_heads (int): Number of heads.
        qk_dims (int): Dims of q and k of a head.
        v_dims (int): Dims of v of a head.
    """

    num_heads: int
    qk_dims: int
    v_dims: int

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Attention within windows; see :func:`attend_in_windows`."""
        return attend_in_windows(self, x, mask)


@register_block
class WindowAttentionKind(AttentionKind):
    """Attention within the windows of a Swin transformer."""

    types = (WindowMSA,)
    slim = SlimWindowAttention


@register_block
class ShiftedWindowsKind(BlockKind):
    """What shifts and cuts the windows for the attention in it."""

    types = (ShiftWindowMSA,)
    opaque: ClassVar[bool] = True
    core: ClassVar[Optional[str]] = 'w_msa'

    def applies(self, block: nn.Module) -> bool:
        """One that derives from it may do something else."""
        return type(block) is ShiftWindowMSA and is_attention(block.w_msa)


@register_block
class SwinKind(BlockKind):
    """A Swin transformer."""

    types = (SwinTransformer,)

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """Widths of the feature maps that it hands out."""
        numbers = list(block.num_features)
        for index in block.out_indices:
            norm = getattr(block, f'norm{index}')
            numbers[index] = norm.normalized_shape[0]
        block.num_features = numbers
