"""The attentions of ``transformers``' vision transformers.

ViT, DeiT, DINOv2 and those that copied their code hold query, key and value
in a module ``attention`` and the projection in ``output``. Their shapes come
from numbers that are kept beside the layers, so heads and dims are searched
as those of timm's and torch's are.
"""

from inspect import signature
from typing import ClassVar, Dict, Mapping, Optional, Tuple

from torch import Tensor, nn
from torch.nn import functional as F

from dms_mmrazor.errors import DMSError
from dms_mmrazor.layers.attention import (
    HEADS,
    QK_DIMS,
    V_DIMS,
    AttentionKind,
    HeadDims,
)
from dms_mmrazor.layers.block import register_block
from dms_mmrazor.layers.by_type import qualified_name
from dms_mmrazor.layers.kind import channels_of

_MODELS = 'transformers.models'
_COPIES = (
    ('vit', 'ViT'),
    ('deit', 'DeiT'),
    ('dinov2', 'Dinov2'),
    ('dinov2_with_registers', 'Dinov2WithRegisters'),
    ('ijepa', 'IJepa'),
    ('vit_mae', 'ViTMAE'),
    ('vit_msn', 'ViTMSN'),
    ('yolos', 'Yolos'),
)


class SlimViTAttention(HeadDims, nn.Module):
    """What such an attention becomes in an exported model."""

    attention: nn.Module
    output: nn.Module

    def forward(
        self, hidden_states: Tensor, head_mask: Optional[Tensor] = None
    ) -> Tensor:
        """Self-attention of [B, N, C].

        Raises:
            DMSError: If there is a mask of heads, some of which are gone.
        """
        if head_mask is not None:
            raise DMSError(
                'a searched attention takes no `head_mask`: its heads are '
                'others than those of the model that was searched.'
            )
        inner = self.attention
        layers = (inner.query, inner.key, inner.value)
        query, key, value = (
            layer(hidden_states)
            .unflatten(-1, (self.num_heads, -1))
            .transpose(1, 2)
            for layer in layers
        )
        x = F.scaled_dot_product_attention(
            query,
            key,
            value,
            dropout_p=inner.dropout_prob if self.training else 0.0,
            scale=inner.scaling,
        )
        return self.output(x.transpose(1, 2).flatten(2), hidden_states)


@register_block
class ViTAttentionKind(AttentionKind):
    """Self-attention whose layers are in two modules."""

    types = (SlimViTAttention,)
    names = tuple(
        f'{_MODELS}.{folder}.modeling_{folder}.{name}Attention'
        for folder, name in _COPIES
    )
    slim = SlimViTAttention
    input_layers: ClassVar[Tuple[str, ...]] = (
        'attention.query',
        'attention.key',
        'attention.value',
    )
    output_layer: ClassVar[str] = 'output.dense'
    by_head: ClassVar[Tuple[str, ...]] = ()

    def applies(self, block: nn.Module) -> bool:
        """Whether it is one of them, of a version that gives a tensor."""
        if type(block) is self.slim:
            return True
        if qualified_name(type(block)) not in self.names:
            return False
        # Before transformers 4.56 they gave a tuple, if asked with weights.
        return 'output_attentions' not in signature(block.forward).parameters

    def sizes(self, block: nn.Module) -> Dict[str, int]:
        """Number of heads, q/k dims and v dims."""
        inner = block.attention
        heads = getattr(block, 'num_heads', inner.num_attention_heads)
        return {
            HEADS: heads,
            QK_DIMS: channels_of(inner.query, False) // heads,
            V_DIMS: channels_of(inner.value, False) // heads,
        }

    def make_slim(self, block: nn.Module, sizes: Mapping[str, int]) -> None:
        """Give it the class that allows any head dims, in place."""
        block.__class__ = self.slim
        block.num_heads = sizes[HEADS]

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """Whatever it reads, its heads and dims are told elsewhere."""
