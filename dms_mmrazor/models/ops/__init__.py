"""Layers whose weights are multiplied by masks."""

from dms_mmrazor.models.ops.dms_adaptive_conv import DMSConv2dAdaptivePadding
from dms_mmrazor.models.ops.dms_batch_norm import DMSBatchNorm2d
from dms_mmrazor.models.ops.dms_conv import DMSConv2d
from dms_mmrazor.models.ops.dms_linear import DMSLinear
from dms_mmrazor.models.ops.dms_op import DMSOp
from dms_mmrazor.models.ops.fold import fold_depth, fold_input_mask
from dms_mmrazor.models.ops.narrow import channels_of, narrow_layer
from dms_mmrazor.models.ops.replace import DYNAMIC_OPS, replace_with_dynamic

__all__ = [
    'DYNAMIC_OPS',
    'DMSBatchNorm2d',
    'DMSConv2d',
    'DMSConv2dAdaptivePadding',
    'DMSLinear',
    'DMSOp',
    'channels_of',
    'fold_depth',
    'fold_input_mask',
    'narrow_layer',
    'replace_with_dynamic',
]
