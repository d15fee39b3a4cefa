"""Write the choices of a supernet down as a structure."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

from mmrazor.models.mutables.mutable_channel.units.channel_unit import Channel
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dms_mmrazor.models.subnet import (
    LayerSlice,
    StageStructure,
    Structure,
    UnitStructure,
)
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit

_NARROWED = (nn.Conv2d, nn.Linear, _BatchNorm)


def dump_structure(
    modules: Dict[str, nn.Module],
    num_layers: int,
    units: Sequence[DMSChannelUnit],
    stages: Sequence[DMSDepthUnit],
    masks: Tuple[Tensor, ...],
    resources: Optional[Dict[str, Dict[str, float]]] = None,
    search: Optional[Dict[str, Any]] = None,
) -> Structure:
    """The structure that hard masks describe.

    Args:
        modules (dict[str, nn.Module]): Layers of the supernet by name.
        num_layers (int): Layers with weights in the plain supernet.
        units (Sequence[DMSChannelUnit]): Width units.
        stages (Sequence[DMSDepthUnit]): Depth units.
        masks (tuple[Tensor]): bool mask of each unit, then of each stage.
        resources (dict, optional): For the file. Defaults to None.
        search (dict, optional): For the file. Defaults to None.
    """
    unit_structures = tuple(
        UnitStructure(
            unit.name,
            unit.num_channels,
            tuple(mask.nonzero().flatten().tolist()),
            tuple(_slices(unit.output_related, modules)),
            tuple(_slices(unit.input_related, modules)),
        )
        for unit, mask in zip(units, masks)
    )
    stage_structures = tuple(
        StageStructure(
            stage.name,
            stage.block_names,
            tuple(n for n, m in zip(stage.block_names, mask.tolist()) if m),
        )
        for stage, mask in zip(stages, masks[len(units) :])
    )
    return Structure(
        unit_structures,
        stage_structures,
        num_layers,
        resources or {},
        search or {},
    )


def _slices(
    channels: Sequence[Channel], modules: Dict[str, nn.Module]
) -> List[LayerSlice]:
    """Layers that get narrower; a norm is listed once, as a producer."""
    return [
        LayerSlice(channel.name, channel.start, channel.end)
        for channel in channels
        if isinstance(modules.get(channel.name), _NARROWED)
        and (
            channel.is_output_channel
            or not isinstance(modules[channel.name], _BatchNorm)
        )
    ]
