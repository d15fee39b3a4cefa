"""All that a search needs of an attention that no library has."""

from typing import Optional

import torch
from torch import Tensor, nn

from dms_mmrazor.layers import AttentionKind, register_block
from dms_mmrazor.layers.attention import split_heads


class RectifiedAttention(nn.Module):
    """Self-attention of [B, N, C] by squared rectified scores."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (channels // num_heads) ** -0.5
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def split(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        parts = self.qkv(x).view(batch, tokens, 3, self.num_heads, -1)
        return parts.permute(2, 0, 3, 1, 4).unbind()

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.split(x)
        scores = (query * self.scale) @ key.transpose(-2, -1)
        out = torch.relu(scores).square() @ value
        return self.proj(out.transpose(1, 2).flatten(2))


class SlimRectifiedAttention(RectifiedAttention):
    """What it becomes: dims of q and k unlike those of v."""

    def split(self, x: Tensor) -> Tensor:
        return split_heads(self, x)


@register_block
class RectifiedKind(AttentionKind):
    types = (RectifiedAttention,)
    slim: Optional[type] = SlimRectifiedAttention
