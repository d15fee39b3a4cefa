"""Write the choices of a search down as a structure."""

from typing import Any, Dict, Optional, Sequence

from dms_mmrazor.core import FlatTopk
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit
from dms_mmrazor.subnet import Structure
from dms_mmrazor.subnet.surgery import (
    count_touched_channels,
    count_weighted_layers,
    strides_of,
)
from dms_mmrazor.supernet.searched_sides import SearchedSides
from dms_mmrazor.supernet.structure_dump import dump_masks, unit_slices


class StructureWriter:
    """Knows which layers of the plain supernet a unit narrows.

    Args:
        sides (SearchedSides): The plain supernet; not kept.
        units (Sequence[DMSChannelUnit]): Width units.
        stages (Sequence[DMSDepthUnit]): Depth units.
    """

    def __init__(
        self,
        sides: SearchedSides,
        units: Sequence[DMSChannelUnit],
        stages: Sequence[DMSDepthUnit],
    ) -> None:
        self._units = tuple(units)
        self._stages = tuple(stages)
        self._slices = [unit_slices(unit, sides.parts) for unit in units]
        self._layers = count_weighted_layers(sides.modules)
        self._strides = strides_of(sides.modules)
        self._channels = count_touched_channels(sides.parts, self._slices)

    def __call__(
        self,
        topk: FlatTopk,
        resources: Optional[Dict[str, Any]] = None,
        search: Optional[Dict[str, Any]] = None,
    ) -> Structure:
        """What the hard masks of all units and stages keep.

        Args:
            topk (FlatTopk): Operators of the units, then of the stages.
            resources (dict, optional): For the file. Defaults to None.
            search (dict, optional): For the file. Defaults to None.
        """
        units, stages = dump_masks(
            self._units,
            self._slices,
            self._stages,
            topk.split(topk.hard_mask().cpu()),
        )
        return Structure(
            units,
            stages,
            self._layers,
            self._channels,
            resources or {},
            search or {},
            self._strides,
        )
