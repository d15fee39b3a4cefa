"""The structure file ``subnet.yaml``: which parts of a supernet are kept.

It is all that a retraining needs beside the architecture's config: every
unit lists its kept channels and the layers that they belong to, every stage
its kept blocks. Channels are written as ranges ('0-15, 18') to stay
readable.
"""

import os
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import yaml

from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import written_at_once

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
        layers (int): Number of layers with weights in the supernet, by
            which another architecture is recognized.
        resources (dict): kind → {'supernet': …, 'subnet': …, 'target': …}.
        search (dict): How it was found: versions, target, iterations, seed.
    """

    units: Tuple[UnitStructure, ...]
    stages: Tuple[StageStructure, ...]
    layers: int
    resources: Dict[str, Dict[str, float]]
    search: Dict[str, Any]

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


def parse_ranges(text: str) -> Tuple[int, ...]:
    """Inverse of :func:`format_ranges`.

    Raises:
        ValueError: If the text is not ascending ranges of numbers.
    """
    indices: List[int] = []
    for part in str(text).split(','):
        first, _, last = part.strip().partition('-')
        begin, end = int(first), int(last or first)
        if end < begin or (indices and begin <= indices[-1]):
            raise ValueError(f'{part.strip()!r} is not ascending')
        if end >= 1 << 24:
            raise ValueError(f'{part.strip()!r} is out of range')
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
    return {
        'format': f'dms_mmrazor subnet {FORMAT_VERSION}',
        'resources': structure.resources,
        'search': structure.search,
        'supernet_layers': structure.layers,
        'stages': {
            s.name: {'blocks': list(s.blocks), 'kept': list(s.kept)}
            for s in structure.stages
        },
        'units': {u.name: _unit_to_dict(u) for u in structure.units},
    }


def _parse_slice(text: Any) -> LayerSlice:
    """Read 'layer start:end'."""
    layer, _, channels = str(text).rpartition(' ')
    start, _, end = channels.partition(':')
    layer_slice = LayerSlice(layer, int(start), int(end))
    if not layer or not 0 <= layer_slice.start < layer_slice.end:
        raise ValueError(f'{text!r} is not `layer start:end`')
    return layer_slice


def _unit_from_dict(name: str, raw: Dict[str, Any]) -> UnitStructure:
    unit = UnitStructure(
        str(name),
        int(raw['size']),
        parse_ranges(raw['kept']),
        tuple(_parse_slice(text) for text in raw['outputs']),
        tuple(_parse_slice(text) for text in raw['inputs']),
    )
    if unit.kept[-1] >= unit.size:
        raise ValueError(f'channel {unit.kept[-1]} of {unit.size} is kept')
    return unit


def _stage_from_dict(name: str, raw: Dict[str, Any]) -> StageStructure:
    blocks = tuple(str(block) for block in raw['blocks'])
    kept = tuple(str(block) for block in raw['kept'])
    unknown = sorted(set(kept) - set(blocks))
    if unknown:
        raise ValueError(f'{unknown[0]!r} is kept but not among its blocks')
    return StageStructure(str(name), blocks, kept)


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
    where = 'the file'
    try:
        units, stages = [], []
        for name, unit in raw['units'].items():
            where = f'unit {name!r}'
            units.append(_unit_from_dict(name, unit))
        for name, stage in raw['stages'].items():
            where = f'stage {name!r}'
            stages.append(_stage_from_dict(name, stage))
        where = 'the file'
        return Structure(
            tuple(units),
            tuple(stages),
            int(raw['supernet_layers']),
            dict(raw.get('resources') or {}),
            dict(raw.get('search') or {}),
        )
    except KeyError as error:
        raise DMSError(f'{source}: {where} has no field {error}.') from None
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise DMSError(f'{source}: {where} is broken: {error}.') from None


def load_structure(path: str) -> Structure:
    """Read a structure file.

    Raises:
        DMSError: If it does not exist or is not a structure file.
    """
    if not os.path.isfile(path):
        raise DMSError(f'structure file {path} does not exist.')
    try:
        with open(path, encoding='utf-8') as file:
            raw = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = ' '.join(str(error).split())
        raise DMSError(f'{path} cannot be read as YAML: {line}') from None
    return structure_from_dict(raw, source=path)


def save_structure(structure: Structure, path: str) -> None:
    """Write a structure file; a reader never sees half of it."""
    with written_at_once(path) as temporary:
        with open(temporary, 'w', encoding='utf-8') as file:
            yaml.safe_dump(
                structure_to_dict(structure),
                file,
                sort_keys=False,
                default_flow_style=False,
                width=1 << 16,
            )
