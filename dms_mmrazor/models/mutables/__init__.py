"""MMRazor's view of the differentiable top-k operators."""

from dms_mmrazor.models.mutables.channel_container import (
    DMSChannelContainer,
    ExpandedMutableChannel,
)
from dms_mmrazor.models.mutables.masks import (
    LayerMasks,
    MaskPlan,
    MaskTable,
    Places,
    PlannedMask,
    TopkOperator,
    beside,
)
from dms_mmrazor.models.mutables.topk_mutables import (
    DMSMutableChannel,
    DMSMutableDepth,
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
