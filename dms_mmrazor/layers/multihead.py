"""torch's ``nn.MultiheadAttention``: searched, and cut down.

Its three input projections are one parameter, ``in_proj_weight``, whose
columns are the channels that it reads and whose rows are heads times dims of
q, k and v; ``out_proj`` is never called, only its tensors are used. So the
attention itself is the layer that carries the masks of its input projection.

With heads and dims kept one by one, the embedding no longer is heads times
dims, which the stock module insists on: what is cut down becomes a
:class:`SlimMultiheadAttention`, with the same parameters.

In evaluation torch computes whole encoder layers by a kernel of its own that
never calls the modules inside; masks would be lost there. Layers of a
supernet do without it (:class:`DMSTransformerEncoderLayer`).
"""

from typing import ClassVar, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from dms_mmrazor.layers.dms_op import DMSOp
from dms_mmrazor.layers.fold import fold_depth, fold_masks
from dms_mmrazor.layers.kind import (
    Indices,
    LayerKind,
    register_kind,
    register_masked,
    select,
)
from dms_mmrazor.layers.linear import DMSLinear
from dms_mmrazor.models.mutables import LayerMasks
from dms_mmrazor.registry import MODELS

Affine = Tuple[Tensor, Optional[Tensor]]


def is_multihead(module: object) -> bool:
    """Whether a module is an ``nn.MultiheadAttention`` that is followed.

    One that embeds keys or values of other widths, or adds some of its own,
    is not.
    """
    known = (
        nn.MultiheadAttention,
        DMSMultiheadAttention,
        SlimMultiheadAttention,
    )
    return (
        type(module) in known
        and module.in_proj_weight is not None
        and module.bias_k is None
        and not module.add_zero_attn
    )


def multihead_sizes(module: nn.MultiheadAttention) -> Tuple[int, int, int]:
    """Number of heads, of q/k dims and of v dims."""
    dims = module.head_dim
    return (
        module.num_heads,
        getattr(module, 'qk_dims', dims),
        getattr(module, 'v_dims', dims),
    )


class Masking(NamedTuple):
    """What of the scores and results an attention is asked for.

    Attributes:
        key_padding_mask (Tensor, optional): [B, S]; True (or -inf) for keys
            to ignore.
        attn_mask (Tensor, optional): [L, S] or [B * heads, L, S]; True for
            what is not allowed, or a number to add.
        need_weights (bool): Whether to return the attention.
        average_attn_weights (bool): Its mean over the heads.
    """

    key_padding_mask: Optional[Tensor]
    attn_mask: Optional[Tensor]
    need_weights: bool
    average_attn_weights: bool


def attend(
    module: nn.MultiheadAttention,
    inputs: Tuple[Tensor, Tensor, Tensor],
    in_proj: Affine,
    out_proj: Affine,
    masking: Masking,
) -> Tuple[Tensor, Optional[Tensor]]:
    """``nn.MultiheadAttention`` with any numbers of heads and dims.

    Args:
        module (nn.MultiheadAttention): Numbers of heads and dims, order of
            dimensions, dropout.
        inputs (tuple[Tensor]): Query [B, L, C], key and value [B, S, C]; or
            as the module takes them.
        in_proj (tuple): Weight [H (2 D + E), C] and bias.
        out_proj (tuple): Weight [C, H E] and bias.
        masking (Masking): As the stock module takes it.

    Returns:
        tuple: Output like the query, and the attention [B, L, S] (or [B, H,
        L, S]) or ``None``.
    """
    query, key, value = _project(module, inputs, in_proj)
    mask = _added_mask(masking, query)
    dropout = module.dropout if module.training else 0.0
    # The fused kernel does not tell its weights; torch < 2 has none.
    if masking.need_weights or not hasattr(F, 'scaled_dot_product_attention'):
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
        scores = scores if mask is None else scores + mask
        weights = F.dropout(scores.softmax(-1), dropout)
        x = weights @ value
    else:
        weights = None
        x = F.scaled_dot_product_attention(query, key, value, mask, dropout)
    x = F.linear(x.transpose(1, 2).flatten(2), *out_proj)
    if weights is not None and masking.average_attn_weights:
        weights = weights.mean(1)
    if inputs[0].dim() == 2:
        x, weights = x[0], None if weights is None else weights[0]
    elif not module.batch_first:
        x = x.transpose(0, 1)
    return x, weights if masking.need_weights else None


def _project(
    module: nn.MultiheadAttention,
    inputs: Tuple[Tensor, Tensor, Tensor],
    in_proj: Affine,
) -> Tuple[Tensor, ...]:
    """q [B, H, L, D], k [B, H, S, D] and v [B, H, S, E]."""
    heads, qk, v = multihead_sizes(module)
    rows = [heads * qk, heads * qk, heads * v]
    weight, bias = in_proj
    # Of one tensor a single product is made, as by torch.
    same = inputs[0] is inputs[1] and inputs[1] is inputs[2]
    if inputs[0].dim() == 2:
        inputs = tuple(x[None] for x in inputs)
    elif not module.batch_first:
        inputs = tuple(x.transpose(0, 1) for x in inputs)
    if same:
        parts = F.linear(inputs[0], weight, bias).split(rows, -1)
    else:
        biases = [None] * 3 if bias is None else bias.split(rows)
        parts = tuple(map(F.linear, inputs, weight.split(rows), biases))
    return tuple(
        part.reshape(*part.shape[:2], heads, -1).transpose(1, 2)
        for part in parts
    )


def _added_mask(masking: Masking, query: Tensor) -> Optional[Tensor]:
    """What is added to the scores [B, H, L, S], if anything."""
    padding, mask = masking.key_padding_mask, masking.attn_mask
    if padding is not None:
        padding = padding if padding.dim() == 2 else padding[None]
        padding = _additive(padding, query)[:, None, None]
    if mask is not None:
        mask = _additive(mask, query)
        if mask.dim() == 3:
            mask = mask.view(query.shape[0], -1, *mask.shape[1:])
    if padding is None or mask is None:
        return mask if padding is None else padding
    return mask + padding


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.is_floating_point():
        return mask.to(like.dtype)
    zeros = torch.zeros_like(mask, dtype=like.dtype)
    return zeros.masked_fill(mask.bool(), float('-inf'))


class _OwnForward(nn.MultiheadAttention):
    """An attention that torch's kernels must not compute by themselves."""

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """What these kernels ask before they take over."""
        return False

    def projections(self) -> Tuple[Affine, Affine]:
        """Weight and bias of the input and the output projection."""
        raise NotImplementedError

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Optional[Tensor] = None,
        need_weights: bool = True,
        attn_mask: Optional[Tensor] = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """Attention, as the stock module.

        ``is_causal`` is a hint that comes with the mask that it means.
        """
        masking = Masking(
            key_padding_mask, attn_mask, need_weights, average_attn_weights
        )
        return attend(self, (query, key, value), *self.projections(), masking)


@MODELS.register_module()
class DMSMultiheadAttention(_OwnForward, nn.MultiheadAttention, DMSOp):
    """``nn.MultiheadAttention`` with masked channels, heads and dims.

    The masks of the dims of q are its outputs; those of heads and v dims
    are the inputs of ``out_proj``.
    """

    one_sided: ClassVar[bool] = True

    @property
    def static_op_factory(self) -> type:
        """The stock module."""
        return nn.MultiheadAttention

    def projections(self) -> Tuple[Affine, Affine]:
        """Weights and biases with the masks multiplied in."""
        masks, out = self.masks(), self.out_proj
        in_proj = fold_masks(
            self.in_proj_weight,
            self.in_proj_bias,
            LayerMasks(masks.inputs, masks.outputs),
        )
        out_proj = out.weight, out.bias
        if isinstance(out, DMSOp):
            out_proj = out.fold(*out_proj)
        if masks.depth is not None:
            out_proj = fold_depth(*out_proj, masks.depth)
        return in_proj, out_proj


@MODELS.register_module()
class DMSOutProjection(NonDynamicallyQuantizableLinear, DMSLinear):
    """``out_proj`` of an attention with masked heads and v dims."""


register_masked(NonDynamicallyQuantizableLinear, DMSOutProjection)


@register_kind
class MultiheadKind(LayerKind):
    """The input projection of torch's attention.

    Its outputs are heads times dims, which units know by names of their own.
    """

    types = (nn.MultiheadAttention,)
    masked = {nn.MultiheadAttention: DMSMultiheadAttention}
    mixes = False
    weights = ('in_proj_weight',)
    leaf = False

    def unsupported(self, layer: nn.Module) -> str:
        """The parts of one that is followed stand for it."""
        return 'reads keys of its own width, not supported'

    def channels(self, layer: nn.Module, is_input: bool) -> int:
        """Rows or columns of the projection."""
        return layer.in_proj_weight.shape[int(is_input)]

    def narrow(
        self, layer: nn.Module, out_kept: Indices, in_kept: Indices
    ) -> None:
        """Keep some rows and columns, in place."""
        weight = select(layer.in_proj_weight, 0, out_kept)
        layer.in_proj_weight = select(weight, 1, in_kept)
        layer.in_proj_bias = select(layer.in_proj_bias, 0, out_kept)


class SlimMultiheadAttention(_OwnForward):
    """``nn.MultiheadAttention`` with any numbers of heads, dims, channels.

    What an attention becomes in an exported model: the same parameters.

    Attributes:
        embed_dim (int): Channels that it reads and gives.
        num_heads (int): Number of heads.
        qk_dims (int): Dims of q and k of a head; those of the full
            attention, ``head_dim``, where they are not set.
        v_dims (int): Dims of v of a head, likewise.
    """

    def projections(self) -> Tuple[Affine, Affine]:
        """Weights and biases."""
        return (
            (self.in_proj_weight, self.in_proj_bias),
            (self.out_proj.weight, self.out_proj.bias),
        )


class DMSTransformerEncoderLayer(nn.TransformerEncoderLayer, DMSOp):
    """``nn.TransformerEncoderLayer`` that always calls its modules."""

    @property
    def activation_relu_or_gelu(self) -> int:
        """What torch's kernel asks before it takes over: neither."""
        return 0
