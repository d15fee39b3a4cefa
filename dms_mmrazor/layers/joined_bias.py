"""Attentions with a bias for q and v beside the layer that gives them.

BEiT, EVA and Swin V2 hand the weight of ``qkv`` to a function, with a bias
that they join of two parameters and zeros. In a supernet they call the layer,
which has the masks; what is exported reads its weight, as the stock one does.
"""

import math
from typing import Any, ClassVar, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dms_mmrazor.layers.any_dims import (
    AnyDims,
    AnyDimsKind,
    added_scores,
    attend,
    weighted_values,
)
from dms_mmrazor.layers.attention import (
    HEADS,
    QK_DIMS,
    V_DIMS,
    AttentionKind,
    attention_kind,
    heads_of,
)
from dms_mmrazor.layers.block import Products
from dms_mmrazor.layers.dms_op import DMSOp
from dms_mmrazor.layers.kind import Call, select
from dms_mmrazor.layers.window_attention import (
    masked_scores,
    position_bias,
)

_BIASES = ('q_bias', 'k_bias', 'v_bias')

_LARGEST_SCALE = math.log(100.0)
"""Of the logarithms of the scales of a cosine attention."""


def biases(module: nn.Module) -> List[Tensor]:
    """The biases of q, k and v, one after the other; none if it has none."""
    if getattr(module, 'q_bias', None) is None:
        return []
    # Some have zeros for k, others make them when they run.
    zeros = getattr(module, 'k_bias', torch.zeros_like(module.q_bias))
    return [module.q_bias, zeros, module.v_bias]


class JoinedBias(AnyDims):
    """Such an attention with any numbers of heads and dims."""

    def heads(self, x: Tensor) -> List[Tensor]:
        """What belongs to each head of q, k and v, of [B, N, C].

        Returns:
            list[Tensor]: q [B, H, N, D], k [B, H, N, D] and v [B, H, N, E].
        """
        sizes = attention_kind(self).sizes(self)
        dims = (sizes[key] for key in (HEADS, QK_DIMS, V_DIMS))
        if biases(self):
            rows = self.apply_qkv(x, torch.cat(biases(self)))
        else:
            rows = self.qkv(x)
        return heads_of(rows, *dims)

    def apply_qkv(self, x: Tensor, bias: Tensor) -> Tensor:
        """Apply the weight of ``qkv`` without calling it."""
        return F.linear(x, self.qkv.weight, bias)

    def attend(
        self,
        parts: List[Tensor],
        bias: Optional[Tensor],
        is_causal: bool = False,
    ) -> Tensor:
        """What the attention gives of q, k and v, [B, N, C]."""
        if getattr(self, 'fused_attn', False):
            return self.project(attend(self, parts, bias, is_causal))
        bias = added_scores(bias, parts[0], is_causal)
        return self.project(weighted_values(self, parts, bias))


class CallingQKV(JoinedBias, DMSOp):
    """One in a supernet: its layers have the masks."""

    def apply_qkv(self, x: Tensor, bias: Tensor) -> Tensor:
        """Call it with a bias, which gets the masks of its outputs, too."""
        # An instance's dictionary comes before its parameters.
        self.qkv.__dict__['bias'] = bias
        try:
            return self.qkv(x)
        finally:
            del self.qkv.__dict__['bias']


class BeitOfAnyDims(JoinedBias):
    """What BEiT's computes."""

    def compute(self, x: Tensor, shared: Optional[Tensor]) -> Tensor:
        """Self-attention of [B, N, C].

        Args:
            x (Tensor): [B, N, C].
            shared (Tensor, optional): Of all layers, added to the scores.
        """
        bias = shared
        if self.relative_position_bias_table is not None:
            own = position_bias(self, len(self.relative_position_index))[None]
            bias = own if bias is None else own + bias
        return self.attend(self.heads(x), bias)


class CosinesOfAnyDims(JoinedBias):
    """What the windows of Swin V2 compute."""

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Attention within windows.

        Args:
            x (Tensor): [windows * B, N, C].
            mask (Tensor, optional): [windows, N, N], added to the scores.
                Defaults to None.
        """
        query, key, value = self.heads(x)
        scale = self.logit_scale.clamp(max=_LARGEST_SCALE).exp()
        query = F.normalize(query, dim=-1) * scale
        scores = query @ F.normalize(key, dim=-1).transpose(-2, -1)
        scores = masked_scores(scores + self._position_bias(), mask)
        x = self.attn_drop(self.softmax(scores)) @ value
        return self.project(x.transpose(1, 2).flatten(2))

    def _position_bias(self) -> Tensor:
        """What is added to the scores by relative position, [H, N, N]."""
        table = self.cpb_mlp(self.relative_coords_table).flatten(0, 2)
        bias = table[self.relative_position_index]
        # ONNX takes no negative dimension of a transposition.
        return 16 * bias.sigmoid().permute(2, 0, 1)


class JoinedBiasKind(AnyDimsKind):
    """An attention whose bias of q, k and v is beside their layer."""

    uncalled: ClassVar[Tuple[str, ...]] = ('qkv',)

    def applies(self, block: nn.Module) -> bool:
        """Not where q, k and v have layers of their own, or more follows."""
        whole = getattr(block, 'qkv', None) is not None
        return super().applies(block) and (
            whole and AttentionKind.applies(self, block)
        )

    def positions(self, block: nn.Module, call: Call) -> Dict[str, int]:
        """Pairs of tokens, and the tokens of a layer that is not called."""
        found = super().positions(block, call)
        called = isinstance(block, DMSOp) or not biases(block)
        if type(block) in self.calling:
            called = self.stock_calls(block)
        if called:
            return found
        return {**found, 'qkv': call.args[0].shape[:2].numel()}

    def stock_calls(self, block: nn.Module) -> bool:
        """Whether a stock one calls ``qkv``, instead of reading its weight."""
        return not biases(block) or getattr(block, 'qkv_bias_separate', False)

    def narrow_rows(self, block: nn.Module, rows: Tensor) -> None:
        """Keep some outputs of q, k and v, and their biases, in place."""
        super().narrow_rows(block, rows)
        start = 0
        for key, bias in zip(_BIASES, biases(block)):
            end = start + len(bias)
            kept = rows[(rows >= start) & (rows < end)] - start
            if hasattr(block, key):
                setattr(block, key, select(bias, 0, kept))
            start = end

    def entries(self, sides: Any, name: str, key: str) -> Optional[Products]:
        """A bias has one for each dim of each head."""
        dims = {'q_bias': QK_DIMS, 'v_bias': V_DIMS}.get(key)
        if dims is None:
            return super().entries(sides, name, key)
        parts = [sides.dim(f'{name}.{part}', False) for part in (HEADS, dims)]
        return [(1.0, tuple(parts))]


class CosinesKind(JoinedBiasKind):
    """One with the cosines of q and k for scores, of Swin V2."""

    by_head: ClassVar[Tuple[str, ...]] = ('logit_scale', 'cpb_mlp.2')
    takes_cosines: ClassVar[bool] = True
