"""Heads and head dims of multi-head attention.

With H heads, the output of ``qkv`` is q [H, D], k [H, D] and v [H, E] (where
several layers give these, their outputs in this order stand for it), and
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

from functools import partial
from typing import Any, ClassVar, Dict, List, Mapping, Optional, Tuple

import torch
from torch import Tensor, nn

from dms_mmrazor.layers.block import (
    BlockKind,
    Products,
    block_kind_of,
)
from dms_mmrazor.layers.kind import (
    Call,
    ChannelHolder,
    channels_of,
    narrow_layer,
)

HEADS, QK_DIMS, V_DIMS = 'heads', 'qk_dims', 'v_dims'


class HeadDims:
    """What an attention knows whose dims do not follow from its channels.

    Mixed into those that stock ones become in an exported model.

    Attributes:
        num_heads (int): Number of heads.
        qk_dims (int): Dims of q and k of a head.
        v_dims (int): Dims of v of a head.
    """

    num_heads: int
    qk_dims: int
    v_dims: int


class AttentionKind(BlockKind):
    """One kind of attention whose heads and head dims are searched.

    What is written here holds for self-attention of [B, N, C] with linear
    layers ``qkv`` and ``proj``, ``num_heads`` and, unless all are equal,
    ``qk_dims`` and ``v_dims``. Classes that derive from :attr:`types` may
    compute something else, so they are not meant.

    Attributes:
        slim (type, optional): Class that takes any dims of heads, with the
            same parameters: what the attention becomes in an exported model.
            Defaults to ``None``, the class itself.
        input_layers (tuple[str]): Who give q, k and v, in this order; '' is
            the attention itself.
        output_layer (str): Who reads the heads.
        by_head (tuple[str]): What else in it has one entry for each head,
            where it is there.
        pads (bool): Whether it pads with zeros what its input layer reads.
            Defaults to False.
        takes_cosines (bool): Whether its scores are cosines of all dims of
            q and k, which therefore stay. Defaults to False.
    """

    opaque: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True
    core: ClassVar[Optional[str]] = ''
    slim: ClassVar[Optional[type]] = None
    input_layers: ClassVar[Tuple[str, ...]] = ('qkv',)
    output_layer: ClassVar[str] = 'proj'
    by_head: ClassVar[Tuple[str, ...]] = ('relative_position_bias_table',)
    pads: ClassVar[bool] = False
    takes_cosines: ClassVar[bool] = False

    def applies(self, block: nn.Module) -> bool:
        """Whether it is exactly such an attention, and nothing else in it."""
        if type(block) not in (*self.types, self.slim):
            return False
        if getattr(block, 'gate', None) is not None:
            return False  # a layer of its own multiplies the heads
        if not _is_nothing(getattr(block, 'norm', None)):
            return False  # so does a norm of all of them
        return not getattr(block, 'v_shortcut', False)

    def sizes(self, block: nn.Module) -> Dict[str, int]:
        """Number of heads, q/k dims and v dims."""
        full = count_rows(block) // (3 * block.num_heads)
        return {
            HEADS: block.num_heads,
            QK_DIMS: getattr(block, 'qk_dims', full),
            V_DIMS: getattr(block, 'v_dims', full),
        }

    def held(self, block: nn.Module, dim: str) -> str:
        """Why heads or dims are not searched; '' if they are.

        Args:
            block (nn.Module): The attention.
            dim (str): 'heads', 'qk_dims' or 'v_dims'.
        """
        norm = getattr(block, 'q_norm', None)
        if dim == QK_DIMS and (self.takes_cosines or not _is_nothing(norm)):
            return 'q and k are normalized over the dims of a head'
        return ''

    def paths(self, block: nn.Module) -> List[Tuple[str, ...]]:
        """What its input passes, up to each of its input layers."""
        return [(layer,) for layer in self.input_layers]

    def scales_by_dims(self, block: nn.Module) -> bool:
        """Whether the kernel divides by the root of the head dim it sees."""
        if not hasattr(block, 'scaled_dot_product_attention'):
            return False  # it has a `scale` of its own
        kernel = block.scaled_dot_product_attention
        return not (isinstance(kernel, partial) and 'scale' in kernel.keywords)

    def input_tensors(self, block: nn.Module) -> Tuple[Optional[Tensor], ...]:
        """Weight and bias that give q, and others behind it."""
        first = input_layers(block)[0]
        return first.weight, first.bias

    def narrow_rows(self, block: nn.Module, rows: Tensor) -> None:
        """Keep some of the outputs of q, k and v, in place.

        Args:
            block (nn.Module): The attention.
            rows (Tensor): int [n], numbers through the outputs of all its
                input layers.
        """
        for layer, _, kept in rows_by_layer(block, rows):
            narrow_layer(layer, kept, None)

    def make_slim(self, block: nn.Module, sizes: Mapping[str, int]) -> None:
        """Give it the class that allows any head dims, in place.

        Args:
            block (nn.Module): The attention.
            sizes (Mapping[str, int]): As of :meth:`sizes`.
        """
        if self.slim is not None:
            block.__class__ = self.slim
        block.num_heads = sizes[HEADS]
        block.qk_dims = sizes[QK_DIMS]
        block.v_dims = sizes[V_DIMS]

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """A stock one takes its dims from the channels that it reads.

        So it cannot stay where those alone were cut.
        """
        if self.slim is None or type(block) not in self.types:
            return
        sizes = self.sizes(block)
        read = channels_of(input_layers(block)[0], True)
        if sizes[HEADS] * sizes[QK_DIMS] != read:
            self.make_slim(block, sizes)

    def holders(self, block: nn.Module) -> Dict[str, ChannelHolder]:
        """Its heads and head dims."""
        dims = (HEADS, QK_DIMS, V_DIMS)
        return {dim: AttentionDim(block, dim) for dim in dims}

    def positions(self, block: nn.Module, call: Call) -> Dict[str, int]:
        """Applications of :meth:`macs`: see :meth:`pairs`."""
        return {'': self.pairs(block, call.args)}

    def pairs(self, block: nn.Module, args: Tuple[Any, ...]) -> int:
        """Pairs of tokens whose products are taken, of all images.

        Args:
            block (nn.Module): The attention.
            args (tuple): Its positional arguments.
        """
        images, tokens = args[0].shape[:2]
        return images * tokens**2

    def macs(self, block: nn.Module, part: str = '') -> float:
        """MACs of both products for one pair of tokens."""
        sizes = self.sizes(block)
        return float(sizes[HEADS] * (sizes[QK_DIMS] + sizes[V_DIMS]))

    def products(self, sides: Any, name: str, part: str = '') -> Products:
        """Heads times q/k dims, and heads times v dims."""
        heads, qk, v = (
            sides.dim(f'{name}.{kind}', False)
            for kind in (HEADS, QK_DIMS, V_DIMS)
        )
        return [(1.0, (heads, qk)), (1.0, (heads, v))]

    def widths(
        self, sides: Any, name: str, child: str, is_input: bool
    ) -> Optional[Products]:
        """The outputs of q, k and v, and the inputs of the projection."""
        queries, values = AttentionKind.products(self, sides, name)
        if (child, is_input) == (self.output_layer, True):
            return [values]
        if is_input or child not in self.input_layers:
            return None
        index = self.input_layers.index(child)
        last = index + 1 == len(self.input_layers)
        parts = [queries, queries, values]
        return parts[index:] if last else parts[index : index + 1]


def _is_nothing(module: Optional[nn.Module]) -> bool:
    return module is None or isinstance(module, nn.Identity)


def attention_kind(module: object) -> Optional[AttentionKind]:
    """The kind of an attention, or ``None`` for anything else."""
    kind = block_kind_of(module)
    return kind if isinstance(kind, AttentionKind) else None


def is_attention(module: object) -> bool:
    """Whether heads and head dims of a module can be searched."""
    return attention_kind(module) is not None


def core_name(module: object) -> Optional[str]:
    """See :class:`BlockKind`."""
    kind = block_kind_of(module)
    return None if kind is None else kind.core


def input_layers(module: nn.Module) -> List[nn.Module]:
    """Who give q, k and v; for torch's attention that is itself."""
    names = attention_kind(module).input_layers
    return [module.get_submodule(name) for name in names]


def count_rows(module: nn.Module) -> int:
    """Number of outputs of all input layers of an attention."""
    return sum(channels_of(layer, False) for layer in input_layers(module))


def rows_by_layer(
    module: nn.Module, rows: Tensor
) -> List[Tuple[nn.Module, Tensor, Tensor]]:
    """Which outputs of an attention's input layers belong to which layer.

    Args:
        module (nn.Module): The attention.
        rows (Tensor): int [n], numbers through the outputs of all of them.

    Returns:
        list[tuple]: Each layer, where its outputs are in ``rows`` (bool [n])
        and their numbers within the layer.
    """
    found, start = [], 0
    for layer in input_layers(module):
        end = start + channels_of(layer, False)
        inside = (rows >= start) & (rows < end)
        found.append((layer, inside, rows[inside] - start))
        start = end
    return found


def output_layer(module: nn.Module) -> nn.Module:
    """Who reads the heads."""
    return module.get_submodule(attention_kind(module).output_layer)


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
        return attention_kind(self.module).sizes(self.module)[self.kind]

    def narrow(self, kept: Tensor) -> None:
        """Keep some heads or dims, in place."""
        module, old = self.module, self.channels
        kind = attention_kind(module)
        # Units that keep all are in a structure, too; the stock code is what
        # users know, and what fused kernels and other tools recognize.
        if len(kept) == old:
            return
        outputs, inputs = self._indices(kept)
        sizes = {**kind.sizes(module), self.kind: len(kept)}
        if self.kind == QK_DIMS and kind.scales_by_dims(module):
            _scale_queries(module, (len(kept) / old) ** 0.5)
        kind.narrow_rows(module, outputs)
        narrow_layer(output_layer(module), None, inputs)
        kind.make_slim(module, sizes)

    def _indices(self, kept: Tensor) -> Tuple[Tensor, Tensor]:
        """Kept outputs of ``qkv`` and kept inputs of ``proj``."""
        dim = 0 if self.kind == HEADS else 1
        wanted = {
            HEADS: (True, True, True),
            QK_DIMS: (True, True, False),
            V_DIMS: (False, False, True),
        }[self.kind]
        rows = torch.arange(count_rows(self.module))
        parts = split_qkv(self.module, rows)
        first = int(parts[2][0, 0])
        chosen = [
            part.index_select(dim, kept.cpu()) if want else part
            for part, want in zip(parts, wanted)
        ]
        rows = torch.cat([part.flatten() for part in chosen])
        return rows, chosen[2].flatten() - first


def split_qkv(module: nn.Module, rows: Tensor) -> List[Tensor]:
    """Values of the outputs of ``qkv`` as q [H, D], k [H, D], v [H, E]."""
    sizes = attention_kind(module).sizes(module)
    heads, qk, v = sizes[HEADS], sizes[QK_DIMS], sizes[V_DIMS]
    parts = rows.split([heads * qk, heads * qk, heads * v])
    return [part.view(heads, -1) for part in parts]


@torch.no_grad()
def _scale_queries(module: nn.Module, factor: float) -> None:
    """Multiply q by a number."""
    kind = attention_kind(module)
    sizes = kind.sizes(module)
    number = sizes[HEADS] * sizes[QK_DIMS]
    for tensor in kind.input_tensors(module):
        if tensor is not None:
            tensor[:number] *= factor


def split_heads(module: nn.Module, x: Tensor) -> List[Tensor]:
    """What the ``qkv`` of an attention that was cut gives to its heads.

    Args:
        module (nn.Module): Has ``num_heads``, ``qk_dims`` and ``v_dims``.
        x (Tensor): [B, N, C].

    Returns:
        list[Tensor]: As of :func:`heads_of`.
    """
    sizes = module.num_heads, module.qk_dims, module.v_dims
    return heads_of(module.qkv(x), *sizes)


def heads_of(
    rows: Tensor, heads: int, qk_dims: int, v_dims: int
) -> List[Tensor]:
    """What belongs to each head of q, k and v.

    Args:
        rows (Tensor): [B, N, H * (2 D + E)].
        heads (int): Number H of heads.
        qk_dims (int): Dims D of q and k of a head.
        v_dims (int): Dims E of v of a head.

    Returns:
        list[Tensor]: q [B, H, N, D], k [B, H, N, D] and v [B, H, N, E].
    """
    qk, v = heads * qk_dims, heads * v_dims
    return [
        part.reshape(*rows.shape[:2], heads, -1).transpose(1, 2)
        for part in rows.split([qk, qk, v], dim=-1)
    ]
