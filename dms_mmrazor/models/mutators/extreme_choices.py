"""Choices at the ends of what may be chosen."""

import random
from typing import Dict, Sequence

from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit


def full_choices(
    units: Sequence[DMSChannelUnit], stages: Sequence[DMSDepthUnit]
) -> Dict[str, int]:
    """As many channels and blocks as may be kept, by unit and stage."""
    full = {unit.name: unit.max_kept for unit in units}
    return {**full, **{stage.name: stage.max_blocks for stage in stages}}


def narrow_choices(
    units: Sequence[DMSChannelUnit], stages: Sequence[DMSDepthUnit]
) -> Dict[str, int]:
    """Random numbers that are below the full ones wherever they can be.

    Each depends on the unit's name alone, not on which others there are.
    """
    limits = {u.name: (u.min_kept, u.max_kept, u.step) for u in units}
    for stage in stages:
        limits[stage.name] = (stage.min_blocks, stage.max_blocks, 1)
    return {
        name: random.Random(name).randrange(low, max(high, low + 1), step)
        for name, (low, high, step) in limits.items()
    }
