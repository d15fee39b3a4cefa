"""Blocks of torch itself: its attention and what keeps widths beside it.

An ``nn.MultiheadAttention`` has the weights that give q, k and v as one
parameter of its own, and reads its output projection's weights without
calling it. So what it multiplies has three parts with numbers of tokens of
their own: queries, keys and values, and pairs of both.
"""

from inspect import signature
from typing import Any, ClassVar, Dict, Mapping, Optional, Tuple

from torch import Tensor, nn

from dms_mmrazor.layers.attention import (
    HEADS,
    QK_DIMS,
    V_DIMS,
    AttentionKind,
)
from dms_mmrazor.layers.block import (
    BlockKind,
    Products,
    register_block,
)
from dms_mmrazor.layers.channel_holder import BareParameter
from dms_mmrazor.layers.kind import Call, ChannelHolder
from dms_mmrazor.layers.multihead import (
    DMSMultiheadAttention,
    DMSTransformerEncoderLayer,
    SlimMultiheadAttention,
    is_multihead,
    multihead_sizes,
)

QUERIES, KEYS_VALUES = 'queries', 'keys_values'
"""Names of the two parts of the input projection, for its MACs."""


class InProjection(BareParameter):
    """The channels that an attention reads."""

    def narrow(self, kept: Tensor) -> None:
        """Keep some channels, in place."""
        if len(kept) == self.channels:
            return
        super().narrow(kept)
        module = self.owner
        module.embed_dim = module.kdim = module.vdim = len(kept)
        module.__class__ = SlimMultiheadAttention


@register_block
class MultiheadBlock(AttentionKind):
    """torch's attention, which a trace shows as the parts above."""

    types = (nn.MultiheadAttention, DMSMultiheadAttention)
    slim = SlimMultiheadAttention
    opaque: ClassVar[bool] = False  # no trace looks into torch's modules
    uncalled: ClassVar[Tuple[str, ...]] = ('out_proj',)
    core: ClassVar[Optional[str]] = None
    input_layers: ClassVar[Tuple[str, ...]] = ('',)
    output_layer: ClassVar[str] = 'out_proj'

    def applies(self, block: nn.Module) -> bool:
        """Unless it reads keys of another width, or adds some of its own."""
        return is_multihead(block)

    def sizes(self, block: nn.Module) -> Dict[str, int]:
        """Number of heads, q/k dims and v dims."""
        return dict(zip((HEADS, QK_DIMS, V_DIMS), multihead_sizes(block)))

    def scales_by_dims(self, block: nn.Module) -> bool:
        """Always."""
        return True

    def input_tensors(self, block: nn.Module) -> Tuple[Optional[Tensor], ...]:
        """Weight and bias that give q, k and v."""
        return block.in_proj_weight, block.in_proj_bias

    def holders(self, block: nn.Module) -> Dict[str, ChannelHolder]:
        """Its heads and dims, and the channels that it reads."""
        read = InProjection(block, 'in_proj_weight')
        return {'in_proj_weight': read, **super().holders(block)}

    def positions(self, block: nn.Module, call: Call) -> Dict[str, int]:
        """Tokens that ask, tokens that are asked, pairs; of all images."""
        given = signature(nn.MultiheadAttention.forward).bind_partial(
            block, *call.args, **call.kwargs
        )
        query, key = (given.arguments[name] for name in ('query', 'key'))
        asking, asked = (x.numel() // x.shape[-1] for x in (query, key))
        images = 1
        if query.dim() == 3:
            images = query.shape[0 if block.batch_first else 1]
        return {
            QUERIES: asking,
            KEYS_VALUES: asked,
            '': asking * asked // images,
            self.output_layer: asking,
        }

    def macs(self, block: nn.Module, part: str = '') -> float:
        """MACs of a token's queries, of its keys and values, or of a pair."""
        if not part:
            return super().macs(block)
        heads, qk, v = multihead_sizes(block)
        rows = heads * qk if part == QUERIES else heads * (qk + v)
        return float(rows * block.in_proj_weight.shape[1])

    def products(self, sides: Any, name: str, part: str = '') -> Products:
        """The same in terms of what is kept."""
        queries, values = super().products(sides, name)
        if not part:
            return [queries, values]
        rows = [queries] if part == QUERIES else [queries, values]
        return _of_columns(sides, name, rows)

    def entries(self, sides: Any, name: str, key: str) -> Optional[Products]:
        """Numbers in the input projection's weight or bias."""
        rows = self.widths(sides, name, '', False)
        if key == 'in_proj_weight':
            return _of_columns(sides, name, rows)
        return rows if key == 'in_proj_bias' else None


def _of_columns(sides: Any, name: str, rows: Products) -> Products:
    """Rows of the input projection times the channels that are read."""
    columns = sides.dim(f'{name}.in_proj_weight', False)
    return [(number, (*dims, columns)) for number, dims in rows]


@register_block
class EmbeddingKind(BlockKind):
    """A table of vectors."""

    types = (nn.Embedding,)

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """The length of a vector."""
        block.embedding_dim = block.weight.shape[1]


@register_block
class TransformerKind(BlockKind):
    """Encoder and decoder."""

    types = (nn.Transformer,)

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """The width that it checks its inputs for."""
        norm = getattr(block.encoder, 'norm', None)
        if isinstance(norm, nn.LayerNorm):
            block.d_model = norm.normalized_shape[0]


@register_block
class EncoderLayerKind(BlockKind):
    """A layer of an encoder."""

    types = (nn.TransformerEncoderLayer,)
    calling: ClassVar[Mapping[type, type]] = {
        nn.TransformerEncoderLayer: DMSTransformerEncoderLayer
    }


@register_block
class TransformerEncoderKind(BlockKind):
    """A stack of layers with attentions."""

    types = (nn.TransformerEncoder,)

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """Nested tensors are for kernels that need a stock attention."""
        kinds = {type(part) for part in block.modules()}
        if SlimMultiheadAttention in kinds:
            block.use_nested_tensor = False
