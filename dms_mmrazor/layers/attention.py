"""Heads and head dims of multi-head attention.

With H heads, the output of ``qkv`` is q [H, D], k [H, D] and v [H, E], and
that of the heads, which ``proj`` reads, is [H, E]. Three masks choose the
heads, the D dims of q and k and the E dims of v, the same ones in every
head. The product of the masks of heads and v dims multiplies the input of
``proj``; the mask of the q/k dims multiplies q alone, as each product of a
dim of q with the same dim of k is one element of the search. Both fold into
weights, so the supernet's attention stays the stock module.

The stock kernel divides by the root of the head dim: of the full one in the
supernet, of the kept one in an exported model. Narrowing multiplies q by
``sqrt(kept / full)``, so that both compute the same. Window attention has a
scale of its own, which stays.
"""

import importlib
from functools import partial
from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from dms_mmrazor.layers.kind import (
    ChannelHolder,
    channels_of,
    narrow_layer,
)
from dms_mmrazor.layers.known_types import (
    ATTENTION,
    SHIFTED_WINDOWS,
    TIMM_ATTENTION,
    TIMM_ATTENTION_BEFORE,
    TIMM_WINDOW_ATTENTION,
    WINDOW_ATTENTION,
    qualified_name,
)
from dms_mmrazor.layers.multihead import (
    SlimMultiheadAttention,
    is_multihead,
    multihead_sizes,
)

HEADS, QK_DIMS, V_DIMS = 'heads', 'qk_dims', 'v_dims'

_OPS = 'dms_mmrazor.plugins.mmpretrain'
_TIMM = 'dms_mmrazor.plugins.timm'
_RELATIVE = 'dms_mmrazor.models.spaces.autoformer.RelativeAttention'
_SLIM = {
    ATTENTION: f'{_OPS}.SlimAttention',
    WINDOW_ATTENTION: f'{_OPS}.SlimWindowAttention',
    TIMM_ATTENTION: f'{_TIMM}.SlimAttention',
    TIMM_ATTENTION_BEFORE: f'{_TIMM}.SlimAttention',
    TIMM_WINDOW_ATTENTION: f'{_TIMM}.SlimWindowAttention',
    _RELATIVE: _RELATIVE,  # has any number of heads from the start
}


def is_attention(module: nn.Module) -> bool:
    """Whether heads and head dims of a module can be searched."""
    if is_multihead(module):
        return True
    known = (*_SLIM, *_SLIM.values())
    if qualified_name(type(module)) not in known:
        return False
    if getattr(module, 'gate', None) is not None:
        return False  # a layer of its own multiplies the heads
    if not _is_nothing(getattr(module, 'norm', None)):
        return False  # so does a norm of all of them
    return not getattr(module, 'v_shortcut', False)


def held_dim(module: nn.Module, kind: str) -> str:
    """Why heads or dims of an attention are not searched; '' if they are.

    Args:
        module (nn.Module): The attention.
        kind (str): 'heads', 'qk_dims' or 'v_dims'.
    """
    if kind == QK_DIMS and not _is_nothing(getattr(module, 'q_norm', None)):
        return 'q and k are normalized over the dims of a head'
    return ''


def _is_nothing(module: Optional[nn.Module]) -> bool:
    return module is None or isinstance(module, nn.Identity)


def core_name(module: nn.Module) -> Optional[str]:
    """Where in a module its attention is, if its channels just pass else.

    Returns:
        str, optional: '' for an attention itself, 'w_msa' for one that works
        in shifted windows. ``None`` for torch's own, whose output
        projection is no call.
    """
    if is_multihead(module):
        return None
    if is_attention(module):
        return ''
    if qualified_name(type(module)) == SHIFTED_WINDOWS:
        return 'w_msa' if is_attention(module.w_msa) else None
    return None


def input_layer(module: nn.Module) -> nn.Module:
    """Who gives q, k and v; for torch's attention that is itself."""
    return module if is_multihead(module) else module.qkv


def output_layer(module: nn.Module) -> nn.Module:
    """Who reads the heads."""
    return module.out_proj if is_multihead(module) else module.proj


def attention_sizes(module: nn.Module) -> Dict[str, int]:
    """Number of heads, q/k dims and v dims of an attention."""
    if is_multihead(module):
        return dict(zip((HEADS, QK_DIMS, V_DIMS), multihead_sizes(module)))
    full = module.qkv.out_features // (3 * module.num_heads)
    return {
        HEADS: module.num_heads,
        QK_DIMS: getattr(module, 'qk_dims', full),
        V_DIMS: getattr(module, 'v_dims', full),
    }


def attention_macs(module: nn.Module) -> int:
    """MACs of both products for one pair of tokens."""
    sizes = attention_sizes(module)
    return sizes[HEADS] * (sizes[QK_DIMS] + sizes[V_DIMS])


class AttentionDim(ChannelHolder):
    """Heads, q/k dims or v dims of an attention.

    Args:
        module (nn.Module): The attention.
        kind (str): 'heads', 'qk_dims' or 'v_dims'.
    """

    def __init__(self, module: nn.Module, kind: str) -> None:
        self.module = module
        self.kind = kind

    @property
    def channels(self) -> int:
        """Number of heads or dims."""
        return attention_sizes(self.module)[self.kind]

    def narrow(self, kept: Tensor) -> None:
        """Keep some heads or dims, in place."""
        module, old = self.module, self.channels
        if len(kept) == old and is_multihead(module):
            return  # it may stay the stock module
        outputs, inputs = self._indices(kept)
        sizes = {**attention_sizes(module), self.kind: len(kept)}
        if self.kind == QK_DIMS and _scales_by_head_dim(module):
            _scale_queries(module, (len(kept) / old) ** 0.5)
        narrow_layer(input_layer(module), outputs, None)
        narrow_layer(output_layer(module), None, inputs)
        _make_slim(module)
        module.num_heads = sizes[HEADS]
        module.qk_dims = sizes[QK_DIMS]
        module.v_dims = sizes[V_DIMS]

    def _indices(self, kept: Tensor) -> Tuple[Tensor, Tensor]:
        """Kept outputs of ``qkv`` and kept inputs of ``proj``."""
        dim = 0 if self.kind == HEADS else 1
        wanted = {
            HEADS: (True, True, True),
            QK_DIMS: (True, True, False),
            V_DIMS: (False, False, True),
        }[self.kind]
        rows = channels_of(input_layer(self.module), False)
        parts = split_qkv(self.module, torch.arange(rows))
        first = int(parts[2][0, 0])
        chosen = [
            part.index_select(dim, kept.cpu()) if want else part
            for part, want in zip(parts, wanted)
        ]
        rows = torch.cat([part.flatten() for part in chosen])
        return rows, chosen[2].flatten() - first

    def scores(self, rows: Tensor) -> Tensor:
        """Sum scores of the outputs of ``qkv`` for each head or dim."""
        query, key, value = split_qkv(self.module, rows)
        if self.kind == QK_DIMS:
            return (query + key).sum(dim=0)
        if self.kind == V_DIMS:
            return value.sum(dim=0)
        return torch.cat([query, key, value], dim=1).sum(dim=1)


def _make_slim(module: nn.Module) -> None:
    """Give an attention the class that allows any head dims, in place."""
    name = _SLIM.get(qualified_name(type(module)))
    if is_multihead(module):
        module.__class__ = SlimMultiheadAttention
    elif name is not None:
        library, _, slim = name.rpartition('.')
        module.__class__ = getattr(importlib.import_module(library), slim)


def split_qkv(module: nn.Module, rows: Tensor) -> List[Tensor]:
    """Values of the outputs of ``qkv`` as q [H, D], k [H, D], v [H, E]."""
    sizes = attention_sizes(module)
    heads, qk, v = sizes[HEADS], sizes[QK_DIMS], sizes[V_DIMS]
    parts = rows.split([heads * qk, heads * qk, heads * v])
    return [part.view(heads, -1) for part in parts]


def _scales_by_head_dim(module: nn.Module) -> bool:
    """Whether the kernel divides by the root of the head dim it sees."""
    if is_multihead(module):
        return True
    if not hasattr(module, 'scaled_dot_product_attention'):
        return False  # window attention has a `scale` of its own
    kernel = module.scaled_dot_product_attention
    return not (isinstance(kernel, partial) and 'scale' in kernel.keywords)


@torch.no_grad()
def _scale_queries(module: nn.Module, factor: float) -> None:
    """Multiply q by a number."""
    sizes = attention_sizes(module)
    number = sizes[HEADS] * sizes[QK_DIMS]
    if is_multihead(module):
        tensors = (module.in_proj_weight, module.in_proj_bias)
    else:
        tensors = (module.qkv.weight, module.qkv.bias)
    for tensor in tensors:
        if tensor is not None:
            tensor[:number] *= factor


def find_attention_dim(model: nn.Module, name: str) -> Optional[AttentionDim]:
    """Heads or dims by their full name, if that is what the name names."""
    owner, _, kind = name.rpartition('.')
    if kind not in (HEADS, QK_DIMS, V_DIMS):
        return None
    module = dict(model.named_modules()).get(owner)
    if module is None or not is_attention(module):
        return None
    return AttentionDim(module, kind)


def attention_dims(model: nn.Module) -> Dict[str, ChannelHolder]:
    """Heads and head dims of all attentions: full name → holder."""
    return {
        f'{name}.{kind}': AttentionDim(module, kind)
        for name, module in model.named_modules()
        if is_attention(module)
        for kind in (HEADS, QK_DIMS, V_DIMS)
    }


def split_heads(module: nn.Module, x: Tensor) -> List[Tensor]:
    """What the ``qkv`` of an attention that was cut gives to its heads.

    Args:
        module (nn.Module): Has ``num_heads``, ``qk_dims`` and ``v_dims``.
        x (Tensor): [B, N, C].

    Returns:
        list[Tensor]: q [B, H, N, D], k [B, H, N, D] and v [B, H, N, E].
    """
    batch, tokens, _ = x.shape
    heads = module.num_heads
    qk, v = heads * module.qk_dims, heads * module.v_dims
    return [
        part.reshape(batch, tokens, heads, -1).transpose(1, 2)
        for part in module.qkv(x).split([qk, qk, v], dim=-1)
    ]
