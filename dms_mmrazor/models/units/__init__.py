"""Units: what is searched together."""

from dms_mmrazor.models.units.dms_channel_unit import DMSChannelUnit
from dms_mmrazor.models.units.dms_depth_unit import DepthScaling, DMSDepthUnit

__all__ = ['DMSChannelUnit', 'DMSDepthUnit', 'DepthScaling']
