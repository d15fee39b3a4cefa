"""What can be searched in a plain model, found before it is changed."""

# isort: off
# First of all: mmrazor has to be imported by `compat`.
from dms_mmrazor import registry  # noqa: F401

# isort: on
from dms_mmrazor.graph.channel_analyzer import (
    ChannelGroup,
    DMSChannelAnalyzer,
)
from dms_mmrazor.graph.layer_profile import (
    LayerProfile,
    count_macs,
    profile_layers,
)
from dms_mmrazor.graph.residual_block import ResidualBlock
from dms_mmrazor.graph.stage_finder import (
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
