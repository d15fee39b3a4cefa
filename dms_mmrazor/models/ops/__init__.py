"""Layers whose weights are multiplied by masks."""

from dms_mmrazor.models.ops.attention import (
    HEADS,
    QK_DIMS,
    V_DIMS,
    AttentionDim,
    attention_macs,
    find_attention_dim,
    held_dim,
    is_attention,
)
from dms_mmrazor.models.ops.attention_masks import attach_attention
from dms_mmrazor.models.ops.channel_holder import ChannelHolder
from dms_mmrazor.models.ops.dms_adaptive_conv import DMSConv2dAdaptivePadding
from dms_mmrazor.models.ops.dms_batch_norm import DMSBatchNorm2d
from dms_mmrazor.models.ops.dms_conv import DMSConv2d
from dms_mmrazor.models.ops.dms_layer_norm import DMSLayerNorm
from dms_mmrazor.models.ops.dms_linear import DMSLinear
from dms_mmrazor.models.ops.dms_op import DMSOp
from dms_mmrazor.models.ops.dms_silu import DMSSiLU
from dms_mmrazor.models.ops.fold import fold_depth, fold_input_mask
from dms_mmrazor.models.ops.known_types import is_layer, is_norm, is_weighted
from dms_mmrazor.models.ops.narrow import channels_of, narrow_layer
from dms_mmrazor.models.ops.parts import Part, can_narrow, named_parts
from dms_mmrazor.models.ops.replace import DYNAMIC_OPS, replace_with_dynamic
from dms_mmrazor.models.ops.sync_norm import (
    apply_sync_norms,
    revert_sync_norms,
)

__all__ = [
    'DYNAMIC_OPS',
    'AttentionDim',
    'ChannelHolder',
    'DMSBatchNorm2d',
    'DMSConv2d',
    'DMSConv2dAdaptivePadding',
    'DMSLayerNorm',
    'DMSLinear',
    'DMSOp',
    'DMSSiLU',
    'HEADS',
    'Part',
    'QK_DIMS',
    'V_DIMS',
    'apply_sync_norms',
    'attach_attention',
    'attention_macs',
    'can_narrow',
    'channels_of',
    'fold_depth',
    'fold_input_mask',
    'find_attention_dim',
    'held_dim',
    'is_attention',
    'is_layer',
    'is_norm',
    'is_weighted',
    'named_parts',
    'narrow_layer',
    'replace_with_dynamic',
    'revert_sync_norms',
]
