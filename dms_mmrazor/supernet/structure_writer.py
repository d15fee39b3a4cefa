"""Write the choices of a search down as a structure."""

from typing import Any, Dict, Optional, Sequence, Tuple

from mmrazor.models.mutables.mutable_channel.units.channel_unit import Channel

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


def _full_structure(
    unit: DMSChannelUnit, modules: Dict[str, Part]
) -> UnitStructure:
    """A unit with all its channels, and the layers that it narrows.

    Args:
        unit (DMSChannelUnit): A width unit.
        modules (dict[str, Part]): Parts of the plain supernet.
    """
    return UnitStructure(
        unit.name,
        unit.num_channels,
        tuple(range(unit.num_channels)),
        _slices(unit.output_related, modules),
        _slices(unit.input_related, modules),
    )


def narrows(part: Optional[Part], is_output: bool) -> bool:
    """Whether a unit narrows a part for one of its sides.

    What gives the channels that it reads is narrowed once, as a producer.

    Args:
        part (Part, optional): Layer or holder; None for what a trace has
            beside these.
        is_output (bool): Which side.
    """
    one_sided = is_norm(part) or isinstance(part, ChannelHolder)
    return can_narrow(part) and (is_output or not one_sided)


def _slices(
    channels: Sequence[Channel], modules: Dict[str, Part]
) -> Tuple[LayerSlice, ...]:
    """Channels of layers."""
    return tuple(
        LayerSlice(channel.name, channel.start, channel.end)
        for channel in channels
        if narrows(modules.get(channel.name), channel.is_output_channel)
    )


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
        self._units = [_full_structure(unit, sides.parts) for unit in units]
        self._stages = [
            StageStructure(stage.name, stage.block_names, stage.block_names)
            for stage in stages
        ]
        self._layers = count_weighted_layers(sides.modules)
        self._strides = strides_of(sides.modules)
        self._channels = count_touched_channels(sides.parts, self._units)

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
        # All at once: each look at a GPU waits for it.
        masks = topk.split(topk.hard_mask().cpu())
        units = tuple(
            unit._replace(kept=tuple(mask.nonzero().flatten().tolist()))
            for unit, mask in zip(self._units, masks)
        )
        stages = tuple(
            stage._replace(
                kept=tuple(n for n, m in zip(stage.blocks, mask.tolist()) if m)
            )
            for stage, mask in zip(self._stages, masks[len(units) :])
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
