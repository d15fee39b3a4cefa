"""Attention within windows, and what the Swins of OpenMMLab share.

Several of its libraries have a Swin transformer of their own, with the same
code; each has a file in `plugins/` that names its classes.
"""

from typing import ClassVar, Optional

from torch import Tensor, nn

from dms_mmrazor.layers.attention import (
    AttentionKind,
    HeadDims,
    is_attention,
    split_heads,
)
from dms_mmrazor.layers.block import BlockKind, register_block


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


def masked_scores(scores: Tensor, mask: Optional[Tensor]) -> Tensor:
    """Scores [windows * B, H, N, N] with what a mask of windows adds.

    Args:
        scores (Tensor): [windows * B, H, N, N].
        mask (Tensor, optional): [windows, N, N].
    """
    if mask is None:
        return scores
    scores = scores.unflatten(0, (-1, len(mask))) + mask[:, None]
    return scores.flatten(0, 1)


class WindowsOfAnyDims(HeadDims):
    """A ``WindowMSA`` with head dims of q and k unlike those of v.

    Mixed into a library's, whose parameters it has (``qkv``, ``proj``, the
    table of position biases).
    """

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
        scores = masked_scores(scores, mask)
        out = self.attn_drop(self.softmax(scores)) @ value
        out = out.transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(out))


def register_swin(
    windows: type, shifted: type, transformer: str, any_dims: type
) -> None:
    """Make the classes of a library's Swin transformer known.

    Args:
        windows (type): Attention within windows.
        shifted (type): What shifts and cuts the windows for it.
        transformer (str): Full name of the whole.
        any_dims (type): What the attention becomes in an exported model:
            :class:`WindowsOfAnyDims` mixed into it, a class that can be
            imported by its name, as a pickled model needs it.
    """

    @register_block
    class WindowAttentionKind(AttentionKind):
        types = (windows,)
        slim = any_dims

    @register_block
    class ShiftedWindowsKind(BlockKind):
        types = (shifted,)
        opaque: ClassVar[bool] = True
        core: ClassVar[Optional[str]] = 'w_msa'

        def applies(self, block: nn.Module) -> bool:
            # One that derives from it may do something else.
            return type(block) is shifted and is_attention(block.w_msa)

    @register_block
    class SwinKind(BlockKind):
        names = (transformer,)

        def refresh(self, block: nn.Module, model: nn.Module) -> None:
            # Widths of the feature maps that it hands out.
            numbers = list(block.num_features)
            for index in block.out_indices:
                norm = getattr(block, f'norm{index}')
                if isinstance(norm, nn.LayerNorm):
                    numbers[index] = norm.normalized_shape[0]
            block.num_features = numbers
