"""The space of AutoFormer as a plain vision transformer.

Subnets are nested: the first features of the embedding, the first heads of
64 dims, the first hidden features of an MLP whose ratio is relative to the
*sampled* embedding, the first layers.
"""

from typing import Any, Dict, Tuple

import torch
from mmengine.model import BaseModule
from mmpretrain.models import VisionTransformer
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.layers.attention import AttentionKind
from dms_mmrazor.layers.block import register_block
from dms_mmrazor.registry import MODELS

LONGEST = 14
"""Longer distances count as this one, as in AutoFormer's code."""


class RelativePosition(nn.Module):
    """A vector for each pair of tokens, by their distance on the grid.

    Vertical and horizontal distances have a table each; row 0 of both
    belongs to pairs with the class token.

    Args:
        dims (int): Of the vectors.
        grid (tuple[int, int]): Rows and columns of patches.
    """

    def __init__(self, dims: int, grid: Tuple[int, int]) -> None:
        super().__init__()
        shape = (2 * LONGEST + 2, dims)
        self.embeddings_table_v = nn.Parameter(torch.empty(shape))
        self.embeddings_table_h = nn.Parameter(torch.empty(shape))
        for table in self.parameters():
            nn.init.trunc_normal_(table, std=0.02)
        rows, columns = grid
        position = torch.arange(rows * columns)
        for name, place in (
            ('index_v', position // columns),
            ('index_h', position % columns),
        ):
            distance = (place - place[:, None]).clamp(-LONGEST, LONGEST)
            index = torch.zeros([1 + len(position)] * 2, dtype=torch.long)
            index[1:, 1:] = distance + LONGEST + 1
            self.register_buffer(name, index, persistent=False)

    def forward(self) -> Tensor:
        """Vectors [N, N, dims] of N tokens, the class token first."""
        vertical = self.embeddings_table_v[self.index_v]
        return vertical + self.embeddings_table_h[self.index_h]


class RelativeAttention(BaseModule):
    """Self-attention with relative positions of keys and values.

    The head dim is fixed, so that the inner width need not be that of the
    embedding.

    Attributes:
        num_heads (int): Number of heads.
        qk_dims (int): Dims of q and k of a head.
        v_dims (int): Dims of v of a head.

    Args:
        embed_dims (int): Width of the tokens.
        num_heads (int): Number of heads.
        head_dims (int): Dims of a head.
        grid (tuple[int, int]): Rows and columns of patches.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        head_dims: int,
        grid: Tuple[int, int],
    ) -> None:
        super().__init__()
        inner = num_heads * head_dims
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.qk_dims = self.v_dims = head_dims
        self.scale = head_dims**-0.5
        self.qkv = nn.Linear(embed_dims, 3 * inner)
        self.proj = nn.Linear(inner, embed_dims)
        self.rel_pos_embed_k = RelativePosition(head_dims, grid)
        self.rel_pos_embed_v = RelativePosition(head_dims, grid)

    def init_weights(self) -> None:
        """As the other layers of a vision transformer."""
        super().init_weights()
        for layer in (self.qkv, self.proj):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Self-attention of [B, N, C]."""
        batch, tokens, _ = x.shape
        heads = self.num_heads
        query, key, value = (
            part.reshape(batch, tokens, heads, -1).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        query = query * self.scale
        # Every query n has vectors of its own for all tokens m: one batched
        # product over n, without a copy for each image and head.
        near = torch.einsum('bhnd,nmd->bhnm', query, self.rel_pos_embed_k())
        weights = (query @ key.transpose(-2, -1) + near).softmax(-1)
        near = torch.einsum('bhnm,nmd->bhnd', weights, self.rel_pos_embed_v())
        out = weights @ value + near
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, -1))


@register_block
class RelativeAttentionKind(AttentionKind):
    """It has any number of heads and dims from the start."""

    types = (RelativeAttention,)


@MODELS.register_module()
class PlainAutoFormer(VisionTransformer):
    """The largest network of an AutoFormer space.

    With the mutator of ``configs/_base_/spaces/autoformer.py`` its subnets
    are those of AutoFormer (Chen et al. 2021; DMS paper, Table 16).
    mmrazor's ``AutoformerBackbone`` is a supernet of its own mutables; this
    one is a ``VisionTransformer`` with another attention.

    Args:
        embed_dims (int): Largest embedding. Defaults to 240, that of
            AutoFormer-T.
        num_heads (int): Largest number of heads. Defaults to 4.
        mlp_ratio (float): Largest ratio of an MLP's width to the embedding.
            Defaults to 4.
        depth (int): Most layers. Defaults to 14.
        head_dims (int): Dims of a head. Defaults to 64.
        out_type (str): As VisionTransformer's; AutoFormer averages the
            patches. Defaults to 'avg_featmap'.
        **kwargs (Any): Of VisionTransformer: ``img_size``, ``patch_size``,
            ``drop_path_rate`` and so on.

    Raises:
        DMSError: If ``arch`` is given, which the others stand for.
    """

    def __init__(
        self,
        embed_dims: int = 240,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        depth: int = 14,
        head_dims: int = 64,
        out_type: str = 'avg_featmap',
        **kwargs: Any,
    ) -> None:
        if 'arch' in kwargs:
            raise DMSError(
                'PlainAutoFormer takes embed_dims, num_heads, mlp_ratio and '
                'depth instead of `arch`.'
            )
        arch: Dict[str, int] = dict(
            embed_dims=embed_dims,
            num_layers=depth,
            # Only until the attentions are replaced; they need a divisor.
            num_heads=1,
            feedforward_channels=int(embed_dims * mlp_ratio),
        )
        super().__init__(arch=arch, out_type=out_type, **kwargs)
        for layer in self.layers:
            layer.attn = RelativeAttention(
                embed_dims, num_heads, head_dims, self.patch_resolution
            )
        if out_type == 'avg_featmap':
            self.ln2 = nn.Identity()  # the average is not normalized
