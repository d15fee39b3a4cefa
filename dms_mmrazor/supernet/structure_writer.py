"""Write the choices of a search down as a structure."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

from mmrazor.models.mutables.mutable_channel.units.channel_unit import Channel
from torch import Tensor

from dms_mmrazor.core import FlatTopk
from dms_mmrazor.layers import ChannelHolder, Part, can_narrow, is_norm
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit
from dms_mmrazor.subnet import (
    LayerSlice,
    StageStructure,
    Structure,
    UnitStructure,
)
from dms_mmrazor.subnet.surgery import (
    count_touched_channels,
    count_weighted_layers,
    strides_of,
)
from dms_mmrazor.supernet.searched_sides import SearchedSides

UnitSlices = Tuple[Tuple[LayerSlice, ...], Tuple[LayerSlice, ...]]


def unit_slices(unit: DMSChannelUnit, modules: Dict[str, Part]) -> UnitSlices:
    """Layers that get narrower with a unit: producers and readers.

    Args:
        unit (DMSChannelUnit): A width unit.
        modules (dict[str, Part]): Parts of the plain supernet.
    """
    return (
        tuple(_slices(unit.output_related, modules)),
        tuple(_slices(unit.input_related, modules)),
    )


def dump_masks(
    units: Sequence[DMSChannelUnit],
    slices: Sequence[UnitSlices],
    stages: Sequence[DMSDepthUnit],
    masks: Tuple[Tensor, ...],
) -> Tuple[Tuple[UnitStructure, ...], Tuple[StageStructure, ...]]:
    """Widths and depths that hard masks describe.

    Args:
        units (Sequence[DMSChannelUnit]): Width units.
        slices (Sequence[UnitSlices]): Their layers.
        stages (Sequence[DMSDepthUnit]): Depth units.
        masks (tuple[Tensor]): bool mask of each unit, then of each stage.
    """
    widths = tuple(
        UnitStructure(
            unit.name,
            unit.num_channels,
            tuple(mask.nonzero().flatten().tolist()),
            *unit_slices,
        )
        for unit, unit_slices, mask in zip(units, slices, masks)
    )
    depths = tuple(
        StageStructure(
            stage.name,
            stage.block_names,
            tuple(n for n, m in zip(stage.block_names, mask.tolist()) if m),
        )
        for stage, mask in zip(stages, masks[len(units) :])
    )
    return widths, depths


def _is_one_sided(part: Part) -> bool:
    """Whether inputs and outputs of a part are the same channels."""
    return is_norm(part) or isinstance(part, ChannelHolder)


def _slices(
    channels: Sequence[Channel], modules: Dict[str, Part]
) -> List[LayerSlice]:
    """Channels of layers; a norm is listed once, as a producer."""
    return [
        LayerSlice(channel.name, channel.start, channel.end)
        for channel in channels
        if can_narrow(modules.get(channel.name))
        and (
            channel.is_output_channel
            or not _is_one_sided(modules[channel.name])
        )
    ]


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
