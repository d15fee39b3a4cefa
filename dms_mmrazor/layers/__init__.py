"""Layers whose weights are multiplied by masks."""

# isort: off
# First of all: mmrazor has to be imported by `compat`.
from dms_mmrazor import registry  # noqa: F401

# isort: on
from dms_mmrazor.layers import reparameterized  # noqa: F401
from dms_mmrazor.layers.activations import DMSSiLU
from dms_mmrazor.layers.attention import (
    HEADS,
    QK_DIMS,
    V_DIMS,
    AttentionDim,
    AttentionKind,
    is_attention,
)
from dms_mmrazor.layers.attention_masks import attach_attention
from dms_mmrazor.layers.batch_norm import (
    DMSBatchNorm2d,
    apply_sync_norms,
    revert_sync_norms,
)
from dms_mmrazor.layers.block import (
    BlockKind,
    register_block,
)
from dms_mmrazor.layers.channel_holder import Part, can_narrow, named_parts
from dms_mmrazor.layers.conv import (
    DMSConv2d,
    DMSConv2dAdaptivePadding,
    is_conv,
)
from dms_mmrazor.layers.dms_op import DMSOp, replace_with_dynamic
from dms_mmrazor.layers.fold import fold_depth, fold_input_mask
from dms_mmrazor.layers.formatted_norm import FormattedNorm
from dms_mmrazor.layers.group_norm import DMSGroupNorm
from dms_mmrazor.layers.kind import (
    ChannelHolder,
    LayerKind,
    PassingKind,
    acts_alone,
    channels_of,
    is_depthwise,
    is_layer,
    is_norm,
    is_weighted,
    kind_of,
    masked_form,
    narrow_layer,
    register_kind,
    register_masked,
)
from dms_mmrazor.layers.layer_norm import DMSLayerNorm
from dms_mmrazor.layers.linear import DMSLinear
from dms_mmrazor.layers.rms_norm import DMSRMSNorm

__all__ = [
    'AttentionDim',
    'AttentionKind',
    'BlockKind',
    'ChannelHolder',
    'DMSBatchNorm2d',
    'DMSConv2d',
    'DMSConv2dAdaptivePadding',
    'DMSGroupNorm',
    'DMSLayerNorm',
    'DMSLinear',
    'DMSOp',
    'DMSRMSNorm',
    'FormattedNorm',
    'DMSSiLU',
    'HEADS',
    'LayerKind',
    'Part',
    'PassingKind',
    'QK_DIMS',
    'V_DIMS',
    'acts_alone',
    'apply_sync_norms',
    'attach_attention',
    'can_narrow',
    'channels_of',
    'fold_depth',
    'fold_input_mask',
    'is_attention',
    'is_conv',
    'is_depthwise',
    'is_layer',
    'is_norm',
    'is_weighted',
    'kind_of',
    'masked_form',
    'named_parts',
    'narrow_layer',
    'register_block',
    'register_kind',
    'register_masked',
    'replace_with_dynamic',
    'revert_sync_norms',
]
