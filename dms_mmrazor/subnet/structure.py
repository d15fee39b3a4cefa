"""The structure file ``subnet.yaml``: which parts of a supernet are kept.

It is all that a retraining needs beside the architecture's config: every
unit lists its kept channels and the layers that they belong to, every stage
its kept blocks. Channels are written as ranges ('0-15, 18') to stay
readable.
"""

from itertools import takewhile
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import (
    as_count,
    as_mapping,
    read_field,
    read_yaml,
    write_yaml,
)

FORMAT_VERSION = 1


class LayerSlice(NamedTuple):
    """Channels ``start`` … ``end`` on one side of a layer."""

    layer: str
    start: int
    end: int


class UnitStructure(NamedTuple):
    """Width of one unit.

    Attributes:
        name (str): Name of the unit.
        size (int): Channels in the supernet.
        kept (tuple[int]): Kept channels, ascending.
        outputs (tuple[LayerSlice]): Layers that produce the channels.
        inputs (tuple[LayerSlice]): Layers that read them.
    """

    name: str
    size: int
    kept: Tuple[int, ...]
    outputs: Tuple[LayerSlice, ...]
    inputs: Tuple[LayerSlice, ...]


class StageStructure(NamedTuple):
    """Depth of one stage.

    Attributes:
        name (str): Name of the stage.
        blocks (tuple[str]): Removable blocks of the supernet.
        kept (tuple[str]): Those of them that are kept.
    """

    name: str
    blocks: Tuple[str, ...]
    kept: Tuple[str, ...]


class Structure(NamedTuple):
    """A subnet of a supernet.

    Attributes:
        units (tuple[UnitStructure]): Widths.
        stages (tuple[StageStructure]): Depths.
        layers (int): Number of layers with weights in the supernet. By
            this and the next another architecture is recognized.
        channels (int): Channels of all sides of layers that units touch.
        resources (dict): kind → {'supernet': …, 'subnet': …, 'target': …}.
        search (dict): How it was found: versions, target, iterations, seed.
        strides (dict, optional): Layer → stride of the supernet's convs and
            poolings, except 1. None in files that do not say it.
    """

    units: Tuple[UnitStructure, ...]
    stages: Tuple[StageStructure, ...]
    layers: int
    channels: int
    resources: Dict[str, Dict[str, float]]
    search: Dict[str, Any]
    strides: Optional[Dict[str, str]] = None

    def __repr__(self) -> str:
        """One line; :attr:`units` have the numbers of all kept channels."""
        kept = ', '.join(
            f'{row["ratio"]:.1%} of the {kind}'
            for kind, row in self.resources.items()
            if 'ratio' in row
        )
        return (
            f'<Structure: {len(self.units)} units, {len(self.stages)} '
            f'stages{f"; {kept}" if kept else ""}>'
        )

    @property
    def removed_blocks(self) -> List[str]:
        """Names of the blocks that are not kept."""
        return [
            block
            for stage in self.stages
            for block in stage.blocks
            if block not in stage.kept
        ]


def format_ranges(indices: Sequence[int]) -> str:
    """Ascending indices as text: [0, 1, 2, 5] → '0-2, 5'."""
    runs: List[List[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ', '.join(f'{a}-{b}' if b > a else f'{a}' for a, b in runs)


def parse_ranges(text: Any, size: int) -> Tuple[int, ...]:
    """Inverse of :func:`format_ranges`.

    Args:
        text (str | int): Ascending ranges of numbers.
        size (int): All numbers must be below it.

    Raises:
        ValueError: If the text is something else.
    """
    indices: List[int] = []
    for part in str(text).split(','):
        first, dash, last = part.strip().partition('-')
        begin, end = int(first), int(last if dash else first)
        if end < begin or (indices and begin <= indices[-1]):
            raise ValueError(f'{part.strip()!r} is not ascending')
        if end >= size:
            raise ValueError(f'{end} is not one of {size} channels')
        indices.extend(range(begin, end + 1))
    return tuple(indices)


def _unit_to_dict(unit: UnitStructure) -> Dict[str, Any]:
    return {
        'size': unit.size,
        'num_kept': len(unit.kept),
        'kept': format_ranges(unit.kept),
        'outputs': [f'{s.layer} {s.start}:{s.end}' for s in unit.outputs],
        'inputs': [f'{s.layer} {s.start}:{s.end}' for s in unit.inputs],
    }


def structure_to_dict(structure: Structure) -> Dict[str, Any]:
    """Plain data of a structure, in the order of the file."""
    strides = structure.strides
    return {
        'format': f'dms_mmrazor subnet {FORMAT_VERSION}',
        'resources': structure.resources,
        'search': structure.search,
        'supernet_layers': structure.layers,
        'supernet_channels': structure.channels,
        **({} if strides is None else {'supernet_strides': dict(strides)}),
        'stages': {
            s.name: {'blocks': list(s.blocks), 'kept': list(s.kept)}
            for s in structure.stages
        },
        'units': {u.name: _unit_to_dict(u) for u in structure.units},
    }


def _names(value: Any) -> Tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f'it is a {type(value).__name__}, not a list')
    return tuple(str(name) for name in value)


def _slices(value: Any) -> Tuple[LayerSlice, ...]:
    return tuple(_parse_slice(text) for text in _names(value))


def _parse_slice(text: str) -> LayerSlice:
    """Read 'layer start:end'."""
    layer, _, channels = text.rpartition(' ')
    start, _, end = channels.partition(':')
    layer_slice = LayerSlice(layer, int(start), int(end))
    if not layer or not 0 <= layer_slice.start < layer_slice.end:
        raise ValueError(f'{text!r} is not `layer start:end`')
    return layer_slice


def _unit_from_dict(source: str, name: Any, raw: Any) -> UnitStructure:
    where = f'{source}: unit {str(name)!r}'
    size = read_field(raw, where, 'size', as_count)
    return UnitStructure(
        str(name),
        size,
        read_field(raw, where, 'kept', lambda text: parse_ranges(text, size)),
        read_field(raw, where, 'outputs', _slices),
        read_field(raw, where, 'inputs', _slices),
    )


def _stage_from_dict(source: str, name: Any, raw: Any) -> StageStructure:
    where = f'{source}: stage {str(name)!r}'
    blocks = read_field(raw, where, 'blocks', _names)
    kept = read_field(raw, where, 'kept', _names)
    unknown = sorted(set(kept) - set(blocks))
    if unknown:
        raise DMSError(
            f'{where}: `kept` has {unknown[0]!r}, which is not among its '
            '`blocks`.'
        )
    return StageStructure(str(name), blocks, kept)


def _strides_from_dict(raw: Any, source: str) -> Optional[Dict[str, str]]:
    """The strides, which older files do not have."""
    key = 'supernet_strides'
    if key not in raw:
        return None
    strides = read_field(raw, source, key, as_mapping)
    return {str(name): str(stride) for name, stride in strides.items()}


def structure_from_dict(raw: Any, source: str = 'the structure') -> Structure:
    """Check plain data and make a structure of it.

    Args:
        raw (dict): As :func:`structure_to_dict` writes it.
        source (str): Named in error messages.

    Raises:
        DMSError: If a field is missing or wrong; the field is named.
    """
    expected = f'dms_mmrazor subnet {FORMAT_VERSION}'
    if not isinstance(raw, dict) or raw.get('format') != expected:
        raise DMSError(
            f'{source} is not a structure file: its first line must be '
            f'`format: {expected}`.'
        )
    units = read_field(raw, source, 'units', as_mapping)
    stages = read_field(raw, source, 'stages', as_mapping)
    return Structure(
        tuple(_unit_from_dict(source, *item) for item in units.items()),
        tuple(_stage_from_dict(source, *item) for item in stages.items()),
        read_field(raw, source, 'supernet_layers', as_count),
        read_field(raw, source, 'supernet_channels', as_count),
        read_field(raw, source, 'resources', as_mapping),
        read_field(raw, source, 'search', as_mapping),
        _strides_from_dict(raw, source),
    )


def load_structure(path: str) -> Structure:
    """Read a structure file.

    Raises:
        DMSError: If it does not exist or is not a structure file.
    """
    raw = read_yaml(path, 'structure file')
    return structure_from_dict(raw, source=path)


def save_structure(structure: Structure, path: str) -> None:
    """Write a structure file; a reader never sees half of it."""
    write_yaml(structure_to_dict(structure), path)


def split_name(name: str) -> Tuple[str, str]:
    """Stage and rest of a layer name: what precedes the first number.

    'backbone.layer1.0.conv1' → ('backbone.layer1', '0.conv1'); without a
    number the last part is the rest.
    """
    parts = name.split('.')
    stage = list(takewhile(lambda part: not part.isdigit(), parts))
    if len(stage) == len(parts):
        stage = parts[:-1]
    return '.'.join(stage), '.'.join(parts[len(stage) :])
