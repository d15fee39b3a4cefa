"""Attentions of timm's other families with any numbers of heads and dims.

What those of PVT, Twins, CaiT, CrossViT, XCiT and VOLO become in an exported
model.
"""

from typing import Tuple

from timm.models.cait import ClassAttn, TalkingHeadAttn
from timm.models.crossvit import CrossAttention
from timm.models.pvt_v2 import Attention as PyramidAttention
from timm.models.twins import GlobalSubSampleAttn, LocallyGroupedAttn
from timm.models.volo import Attention as MapAttention
from timm.models.volo import ClassAttention, OutlookAttention
from timm.models.xcit import XCA
from torch import Tensor
from torch.nn import functional as F

from dms_mmrazor.layers.any_dims import (
    AnyDims,
    ClassAsks,
    CrossCovariance,
)
from dms_mmrazor.layers.attention import split_heads

Size = Tuple[int, int]


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


class SlimClassAttn(ClassAsks, ClassAttn):
    """What the class attention of CaiT becomes in an exported model."""


class SlimCrossAttention(ClassAsks, CrossAttention):
    """What the cross attention of CrossViT becomes in an exported model."""


class SlimClassAttention(ClassAsks, ClassAttention):
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


class SlimCrossCovariance(CrossCovariance, XCA):
    """What the attention of XCiT becomes in an exported model."""


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
