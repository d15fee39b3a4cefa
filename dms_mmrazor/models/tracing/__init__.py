"""What can be searched in a plain model, found before it is changed."""

from dms_mmrazor.models.tracing.channel_analyzer import (
    ChannelGroup,
    DMSChannelAnalyzer,
)
from dms_mmrazor.models.tracing.layer_profile import (
    LayerProfile,
    count_macs,
    profile_layers,
)
from dms_mmrazor.models.tracing.residual_block import ResidualBlock
from dms_mmrazor.models.tracing.stage_finder import (
    ResidualStage,
    find_stages,
)

__all__ = [
    'ChannelGroup',
    'DMSChannelAnalyzer',
    'LayerProfile',
    'ResidualBlock',
    'ResidualStage',
    'count_macs',
    'find_stages',
    'profile_layers',
]
