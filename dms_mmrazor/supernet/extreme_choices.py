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
    units: Sequence[DMSChannelUnit],
    stages: Sequence[DMSDepthUnit],
    trial: int = 0,
) -> Dict[str, int]:
    """Random numbers that are well below the full ones where they can be.

    Each depends on the unit's name alone, not on which others there are. A
    number next to the full one may hide that a unit is misunderstood.

    Args:
        units (Sequence[DMSChannelUnit]): Width units.
        stages (Sequence[DMSDepthUnit]): Depth units.
        trial (int): Other numbers of channels for each; all blocks with odd
            ones, as what is in a removed block is not seen. Defaults to 0.
    """
    limits = {u.name: (u.min_kept, u.max_kept, u.step) for u in units}
    for stage in stages:
        limits[stage.name] = (stage.min_blocks, stage.max_blocks, 1)
    choices = {
        name: random.Random(f'{name} {trial}').randrange(
            low, max(3 * high // 4, low + 1), step
        )
        for name, (low, high, step) in limits.items()
    }
    if trial % 2:
        choices.update({stage.name: stage.max_blocks for stage in stages})
    return choices
