"""Attention within windows, and what the Swins of OpenMMLab share.

Several of its libraries have a Swin transformer of their own, with the same
code; each has a file in `plugins/` that names its classes.
"""

from typing import ClassVar, Optional

from torch import Tensor, nn

from dms_mmrazor.layers.attention import is_attention, split_heads
from dms_mmrazor.layers.block import BlockKind


def position_bias(module: nn.Module, tokens: int) -> Tensor:
    """What a window attention adds to its scores by relative position.

    Args:
        module (nn.Module): Has ``relative_position_index`` [N, N] and
            ``relative_position_bias_table`` [P, H].
        tokens (int): Number N of tokens in a window.

    Returns:
        Tensor: [H, N, N].
    """
    index = module.relative_position_index.flatten()
    bias = module.relative_position_bias_table[index]
    return bias.view(tokens, tokens, -1).permute(2, 0, 1)


class WindowsOfAnyDims:
    """A ``WindowMSA`` with head dims of q and k unlike those of v.

    Mixed into a library's, whose parameters it has (``qkv``, ``proj``, the
    table of position biases).

    Attributes:
        num_heads (int): Number of heads.
        qk_dims (int): Dims of q and k of a head.
        v_dims (int): Dims of v of a head.
    """

    num_heads: int
    qk_dims: int
    v_dims: int

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Attention within windows.

        Args:
            x (Tensor): [windows * B, N, C].
            mask (Tensor, optional): [windows, N, N], added to the scores.
                Defaults to None.
        """
        query, key, value = split_heads(self, x)
        scores = (query * self.scale) @ key.transpose(-2, -1)
        scores = scores + position_bias(self, x.shape[1])
        if mask is not None:
            scores = scores.view(-1, len(mask), *scores.shape[1:])
            scores = (scores + mask[:, None]).flatten(0, 1)
        out = self.attn_drop(self.softmax(scores)) @ value
        out = out.transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(out))


class ShiftedWindowsKind(BlockKind):
    """What shifts and cuts the windows for the attention in it."""

    opaque: ClassVar[bool] = True
    core: ClassVar[Optional[str]] = 'w_msa'

    def applies(self, block: nn.Module) -> bool:
        """One that derives from it may do something else."""
        return type(block) in self.types and is_attention(block.w_msa)


class SwinKind(BlockKind):
    """A Swin transformer."""

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """Widths of the feature maps that it hands out."""
        numbers = list(block.num_features)
        for index in block.out_indices:
            norm = getattr(block, f'norm{index}')
            if isinstance(norm, nn.LayerNorm):
                numbers[index] = norm.normalized_shape[0]
        block.num_features = numbers
