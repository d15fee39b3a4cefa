"""What is searched and, for every layer that is not, why."""

from typing import Dict, List, NamedTuple, Sequence, Tuple

from dms_mmrazor.graph import ChannelGroup
from dms_mmrazor.layers import is_weighted
from dms_mmrazor.models.units import DMSChannelUnit
from dms_mmrazor.supernet.resources import RESOURCES
from dms_mmrazor.supernet.searched_sides import SearchedSides

_UNIT = 'unit '
"""Before the names of a side's units, where others have a reason."""


class LayerReport(NamedTuple):
    """One conv or linear layer.

    Attributes:
        name (str): Its name in the model.
        inputs (str): Units of its input channels, or why there are none.
        outputs (str): Units of its output channels, or why there are none.
        searched (bool): Whether its input or output width is searched.
    """

    name: str
    inputs: str
    outputs: str
    searched: bool

    @property
    def on_both_sides(self) -> bool:
        """Whether both widths are searched."""
        return all(text.startswith(_UNIT) for text in self[1:3])


class SearchSpaceReport(NamedTuple):
    """The search space of a supernet.

    Attributes:
        layers (tuple[LayerReport]): Every conv and linear layer.
        units (tuple): (name, channels) of each width unit.
        stages (tuple): (name, removable blocks) of each depth unit.
        stage_reasons (dict): Stage → why its depth is not searched.
        ranges (dict): kind → (smallest, largest) reachable resource.
    """

    layers: Tuple[LayerReport, ...]
    units: Tuple[Tuple[str, int], ...]
    stages: Tuple[Tuple[str, int], ...]
    stage_reasons: Dict[str, str]
    ranges: Dict[str, Tuple[float, float]]

    @property
    def unsearched(self) -> List[LayerReport]:
        """Layers of which neither width is searched."""
        return [layer for layer in self.layers if not layer.searched]

    def __str__(self) -> str:
        """A table for the log."""
        channels = sum(size for _, size in self.units)
        blocks = sum(size for _, size in self.stages)
        searched = len(self.layers) - len(self.unsearched)
        lines = [
            f'{len(self.units)} width units with {channels} channels, '
            f'{len(self.stages)} stages with {blocks} removable blocks, '
            f'{len(self.units) + len(self.stages)} structural parameters',
            f'{searched} of {len(self.layers)} conv and linear layers are '
            'searched on their input or output side',
        ]
        for kind, (low, high) in self.ranges.items():
            text = RESOURCES[kind].format
            lines.append(f'{kind}: {text(low)} … {text(high)} can be reached')
        for layer in self.layers:
            if not layer.on_both_sides:
                lines.append(
                    f'  {layer.name}: input: {layer.inputs}; '
                    f'output: {layer.outputs}'
                )
        for name, size in self.stages:
            lines.append(f'  stage {name}: {size} removable blocks')
        for name, reason in self.stage_reasons.items():
            lines.append(f'  stage {name}: depth is not searched: {reason}')
        return '\n'.join(lines)


def report_layers(
    sides: SearchedSides,
    units: Sequence[DMSChannelUnit],
    groups: Sequence[ChannelGroup],
) -> Tuple[LayerReport, ...]:
    """Find out for each side of each layer what became of it.

    Args:
        sides (SearchedSides): The searched supernet.
        units (Sequence[DMSChannelUnit]): Its width units.
        groups (Sequence[ChannelGroup]): All groups that the tracer found.
    """
    reasons = {
        (layer, not is_output): group.reason
        for group in groups
        if group.reason
        for layer, is_output in group.layers
    }
    reports = []
    for name, module in sides.modules.items():
        if not is_weighted(module):
            continue
        texts, found = {}, []
        for is_input in (True, False):
            parts = sides.units_of(name, is_input)
            found += parts
            lost = 'the tracer does not reach it'
            texts[is_input] = (
                _UNIT + ', '.join(units[index].name for index in parts)
                if parts
                else reasons.get((name, is_input), lost)
            )
        reports.append(
            LayerReport(name, texts[True], texts[False], bool(found))
        )
    return tuple(reports)
