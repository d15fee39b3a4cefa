"""MMRazor's view of the differentiable top-k operators."""

from dms_mmrazor.models.mutables.channel_container import (
    DMSChannelContainer,
    ExpandedMutableChannel,
)
from dms_mmrazor.models.mutables.dms_mutable_channel import DMSMutableChannel
from dms_mmrazor.models.mutables.dms_mutable_depth import DMSMutableDepth
from dms_mmrazor.models.mutables.masks import (
    LayerMasks,
    MaskPlan,
    MaskTable,
    Places,
    PlannedMask,
    TopkOperator,
    beside,
)

__all__ = [
    'DMSChannelContainer',
    'DMSMutableChannel',
    'DMSMutableDepth',
    'ExpandedMutableChannel',
    'LayerMasks',
    'MaskPlan',
    'MaskTable',
    'Places',
    'PlannedMask',
    'TopkOperator',
    'beside',
]
