"""Attentions whose numbers of heads and dims are their own.

A stock attention takes the dims of a head from the channels that it reads,
which a search makes fewer. What it becomes in an exported model takes them
from the heads; here is what such classes of several libraries share. Each
divides the scores by the root of the whole head dim, a number of its own
that stays.
"""

from typing import Any, ClassVar, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dms_mmrazor.layers.attention import (
    HEADS,
    QK_DIMS,
    AttentionKind,
    HeadDims,
    input_layers,
    split_heads,
)
from dms_mmrazor.layers.block import Products


def attend(
    module: nn.Module,
    parts: List[Tensor],
    mask: Optional[Tensor] = None,
    is_causal: bool = False,
) -> Tensor:
    """Softmax of the scaled scores times v by the fused kernel.

    Args:
        module (nn.Module): The attention: ``scale``, dropout, and whether
            the kernel may be used.
        parts (list[Tensor]): q [B, H, N, D], k [B, H, M, D], v [B, H, M, E].
        mask (Tensor, optional): As of torch's kernel. Defaults to None.
        is_causal (bool): No token sees a later one. Defaults to False.

    Returns:
        Tensor: [B, N, H * E].
    """
    query, key, value = parts
    # The kernel divides by the root of the dims that it sees.
    query = query * (module.scale * query.shape[-1] ** 0.5)
    dropout = module.attn_drop.p if module.training else 0.0
    x = F.scaled_dot_product_attention(
        query, key, value, mask, dropout, is_causal
    )
    return x.transpose(1, 2).flatten(2)


def weighted_values(
    module: nn.Module, parts: List[Tensor], bias: Optional[Tensor] = None
) -> Tensor:
    """The same step by step, [B, N, H * E].

    Args:
        module (nn.Module): The attention: ``scale`` and dropout.
        parts (list[Tensor]): As of :func:`attend`.
        bias (Tensor, optional): Added to the scores [B, H, N, M]. Defaults
            to None.
    """
    query, key, value = parts
    scores = (query * module.scale) @ key.transpose(-2, -1)
    scores = scores if bias is None else scores + bias
    x = module.attn_drop(scores.softmax(dim=-1)) @ value
    return x.transpose(1, 2).flatten(2)


def added_scores(
    mask: Optional[Tensor], query: Tensor, is_causal: bool
) -> Optional[Tensor]:
    """What a mask or causality adds to the scores, if anything.

    Args:
        mask (Tensor, optional): True for what is allowed, or a number to
            add.
        query (Tensor): [B, H, N, D].
        is_causal (bool): No token sees a later one.
    """
    if is_causal:
        tokens = query.shape[-2]
        return query.new_full((tokens, tokens), float('-inf')).triu(1)
    if mask is None or mask.is_floating_point():
        return mask
    zeros = query.new_zeros(mask.shape)
    return zeros.masked_fill(~mask.bool(), float('-inf'))


class AnyDims(HeadDims):
    """An attention with any numbers of heads and dims.

    Mixed into that of a library, whose parameters it has.
    """

    def split(self, asking: Tensor, asked: Tensor) -> List[Tensor]:
        """q of some tokens [B, N, C], k and v of others [B, M, C].

        Returns:
            list[Tensor]: q [B, H, N, D], k [B, H, M, D], v [B, H, M, E].
        """
        first, *others = input_layers(self)
        rows = torch.cat([layer(asked) for layer in others], dim=-1)
        sizes = [self.num_heads * self.qk_dims, self.num_heads * self.v_dims]
        return [
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (first(asking), *rows.split(sizes, dim=-1))
        ]

    def finish(self, parts: List[Tensor]) -> Tensor:
        """What the heads give, [B, N, H * E]."""
        fused = getattr(self, 'fused_attn', False)
        return (attend if fused else weighted_values)(self, parts)

    def project(self, x: Tensor) -> Tensor:
        """What the attention gives, [..., C] of [..., H * E]."""
        return self.proj_drop(self.proj(x))


class ClassAsks(AnyDims):
    """The first token alone asks."""

    def forward(self, x: Tensor) -> Tensor:
        """The class token [B, 1, C] of [B, N, C]."""
        return self.project(self.finish(self.split(x[:, :1], x)))


class CrossCovariance(AnyDims):
    """Attention among the dims of each head instead of tokens (XCiT)."""

    def forward(self, x: Tensor) -> Tensor:
        """Attention among the dims of each head of [B, N, C]."""
        query, key, value = split_heads(self, x)
        query, key = (F.normalize(part, dim=-2) for part in (query, key))
        scores = query.transpose(-2, -1) @ key * self.temperature
        weights = self.attn_drop(scores.softmax(dim=-1))
        x = value @ weights.transpose(-2, -1)
        return self.project(x.transpose(1, 2).flatten(2))


class AnyDimsKind(AttentionKind):
    """An attention with a form of :class:`AnyDims` to become."""

    def applies(self, block: nn.Module) -> bool:
        """One that derives from it may do something else."""
        return type(block) in (*self.types, self.slim)


class OncePerTokenKind(AnyDimsKind):
    """Attention with one pair for each token."""

    def pairs(self, block: nn.Module, args: Tuple[Any, ...]) -> int:
        """Tokens of all images."""
        return args[0].shape[0] * args[0].shape[1]


class CrossCovarianceKind(OncePerTokenKind):
    """Attention among the dims of a head."""

    by_head: ClassVar[Tuple[str, ...]] = ('temperature',)

    def held(self, block: nn.Module, dim: str) -> str:
        """All but the heads."""
        if dim == HEADS:
            return ''
        return 'a softmax over the dims of a head weights them'

    def macs(self, block: nn.Module, part: str = '') -> float:
        """MACs of both products for one token."""
        sizes = self.sizes(block)
        return float(2 * sizes[HEADS] * sizes[QK_DIMS] ** 2)

    def products(self, sides: Any, name: str, part: str = '') -> Products:
        """Heads times squared dims, twice."""
        heads, dims = (
            sides.dim(f'{name}.{kind}', False) for kind in (HEADS, QK_DIMS)
        )
        return [(2.0, (heads, dims, dims))]
