"""MMRazor's view of the differentiable top-k operators."""

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
    DMSChannelContainer,
    DMSMutableChannel,
    DMSMutableDepth,
    ExpandedMutableChannel,
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
