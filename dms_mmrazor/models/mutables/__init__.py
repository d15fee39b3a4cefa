"""MMRazor's view of the differentiable top-k operators."""

from dms_mmrazor.models.mutables.channel_container import (
    DMSChannelContainer,
    ExpandedMutableChannel,
)
from dms_mmrazor.models.mutables.dms_mutable_channel import DMSMutableChannel
from dms_mmrazor.models.mutables.dms_mutable_depth import DMSMutableDepth
from dms_mmrazor.models.mutables.mask_plan import (
    LayerMasks,
    MaskPlan,
    PlannedMask,
)
from dms_mmrazor.models.mutables.topk_operator import MaskTable, TopkOperator

__all__ = [
    'DMSChannelContainer',
    'DMSMutableChannel',
    'DMSMutableDepth',
    'ExpandedMutableChannel',
    'LayerMasks',
    'MaskPlan',
    'MaskTable',
    'PlannedMask',
    'TopkOperator',
]
