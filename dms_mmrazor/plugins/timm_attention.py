"""Attentions of timm's other families with any numbers of heads and dims.

What those of PVT, Twins, CaiT, CrossViT, XCiT and VOLO become in an exported
model. Each divides the scores by the root of the whole head dim, a number of
its own that stays. The stock ones take the dims of a head from the channels
that they read, which a search makes fewer; these take them from the heads.
"""

from typing import List, Optional, Tuple

import torch
from timm.models.cait import ClassAttn, TalkingHeadAttn
from timm.models.crossvit import CrossAttention
from timm.models.pvt_v2 import Attention as PyramidAttention
from timm.models.twins import GlobalSubSampleAttn, LocallyGroupedAttn
from timm.models.volo import Attention as MapAttention
from timm.models.volo import ClassAttention, OutlookAttention
from timm.models.xcit import XCA
from torch import Tensor, nn
from torch.nn import functional as F

from dms_mmrazor.layers.attention import (
    HeadDims,
    input_layers,
    split_heads,
)

Size = Tuple[int, int]


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

    Mixed into one of timm's, whose parameters it has.
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


class SlimOfFewerKeys(AnyDims):
    """Keys are of a smaller feature map: each position may ask all of it."""

    def forward(self, x: Tensor, size: Size) -> Tensor:
        """Attention of [B, N, C], a map of (height, width)."""
        parts = self.split(x, self._reduce(x, size))
        return self.project(self.finish(parts))

    def _reduce(self, x: Tensor, size: Size) -> Tensor:
        """The smaller map [B, M, C]."""
        if self.sr is None:
            return x
        x = x.transpose(1, 2).unflatten(2, size)
        pool, act = (getattr(self, key, None) for key in ('pool', 'act'))
        x = self.sr(x if pool is None else pool(x))
        x = self.norm(x.flatten(2).transpose(1, 2))
        return x if act is None else act(x)


class SlimPyramidAttention(SlimOfFewerKeys, PyramidAttention):
    """What PVT's attention becomes in an exported model."""


class SlimSubSampleAttention(SlimOfFewerKeys, GlobalSubSampleAttn):
    """What the global attention of Twins becomes in an exported model."""


class SlimGroupedAttention(AnyDims, LocallyGroupedAttn):
    """What the local attention of Twins becomes in an exported model."""

    def forward(self, x: Tensor, size: Size) -> Tensor:
        """Attention within windows of [B, N, C], a map of (height, width)."""
        height, width = size
        window = (self.ws, self.ws)
        pads = (0, -width % self.ws, 0, -height % self.ws)
        x = F.pad(x.unflatten(1, size), (0, 0, *pads))
        x = x.unflatten(2, (-1, self.ws)).unflatten(1, (-1, self.ws))
        windows = x.transpose(2, 3)  # [B, down, beside, ws, ws, C]
        x = windows.flatten(3, 4).flatten(0, 2)
        x = self.finish(split_heads(self, x))
        x = x.unflatten(1, window).unflatten(0, windows.shape[:3])
        x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return self.project(x[:, :height, :width].flatten(1, 2))


class SlimOfClass(AnyDims):
    """The first token alone asks."""

    def forward(self, x: Tensor) -> Tensor:
        """The class token [B, 1, C] of [B, N, C]."""
        return self.project(self.finish(self.split(x[:, :1], x)))


class SlimClassAttn(SlimOfClass, ClassAttn):
    """What the class attention of CaiT becomes in an exported model."""


class SlimCrossAttention(SlimOfClass, CrossAttention):
    """What the cross attention of CrossViT becomes in an exported model."""


class SlimClassAttention(SlimOfClass, ClassAttention):
    """What the class attention of VOLO becomes in an exported model."""


class SlimTalkingHeads(AnyDims, TalkingHeadAttn):
    """What the attention of CaiT becomes in an exported model."""

    def forward(self, x: Tensor) -> Tensor:
        """Self-attention of [B, N, C] whose heads are mixed twice."""
        query, key, value = split_heads(self, x)
        scores = (query * self.scale) @ key.transpose(-2, -1)
        # The heads are the last dimension here, [B, N, N, H].
        weights = self.proj_l(scores.movedim(1, -1)).softmax(dim=-2)
        weights = self.attn_drop(self.proj_w(weights).movedim(-1, 1))
        return self.project((weights @ value).transpose(1, 2).flatten(2))


class SlimCrossCovariance(AnyDims, XCA):
    """What the attention of XCiT becomes in an exported model."""

    def forward(self, x: Tensor) -> Tensor:
        """Attention among the dims of each head of [B, N, C]."""
        query, key, value = split_heads(self, x)
        query, key = (F.normalize(part, dim=-2) for part in (query, key))
        scores = query.transpose(-2, -1) @ key * self.temperature
        weights = self.attn_drop(scores.softmax(dim=-1))
        x = value @ weights.transpose(-2, -1)
        return self.project(x.transpose(1, 2).flatten(2))


class SlimMapAttention(AnyDims, MapAttention):
    """What the attention of VOLO becomes in an exported model."""

    def forward(self, x: Tensor) -> Tensor:
        """Self-attention of all positions of [B, H, W, C]."""
        parts = split_heads(self, x.flatten(1, 2))
        return self.project(self.finish(parts).unflatten(1, x.shape[1:3]))


class SlimOutlook(OutlookAttention):
    """What the outlook attention of VOLO becomes in an exported model.

    As wide inside as it was, whatever it reads.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Sums of neighbors, weighted by each position of [B, H, W, C]."""
        heads, area = self.num_heads, self.kernel_size**2
        value = self.unfold(self.v(x).permute(0, 3, 1, 2))
        value = value.unflatten(1, (heads, -1, area)).transpose(2, 4)
        # value: [B, heads, windows, area, E], weights: [..., area, area]
        seen = self.pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        weights = self.attn(seen).flatten(1, 2)
        weights = weights.unflatten(2, (heads, area, area)).transpose(1, 2)
        weights = self.attn_drop((weights * self.scale).softmax(dim=-1))
        summed = (weights @ value).transpose(2, 4).flatten(1, 3)
        shape = x.shape[1:3], self.kernel_size
        out = F.fold(summed, *shape, padding=self.padding, stride=self.stride)
        return self.proj_drop(self.proj(out.permute(0, 2, 3, 1)))
