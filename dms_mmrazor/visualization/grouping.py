"""Sort the units of a structure by the stages of the network."""

from typing import Dict, List, NamedTuple, Sequence, Tuple

from dms_mmrazor.subnet import Structure, UnitStructure
from dms_mmrazor.subnet.structure import split_name


class Bar(NamedTuple):
    """Width of one unit.

    Attributes:
        label (str): Its name within the group.
        kept (int): Kept channels; 0 if all its layers are in removed blocks.
        size (int): Channels of the supernet.
    """

    label: str
    kept: int
    size: int


class Group(NamedTuple):
    """Units and removable blocks of one stage.

    Attributes:
        title (str): Its name.
        bars (tuple[Bar]): Widths, in network order.
        blocks (tuple): (label, whether it is kept) of removable blocks.
    """

    title: str
    bars: Tuple[Bar, ...]
    blocks: Tuple[Tuple[str, bool], ...]


def group_units(structure: Structure) -> List[Group]:
    """Units by stage, in the order of the structure file.

    Args:
        structure (Structure): What a search found.

    Returns:
        list[Group]: Every unit and every block once.
    """
    bars: Dict[str, List[Bar]] = {}
    for unit in structure.units:
        stage, label = split_name(unit.name)
        gone = _is_removed(unit, structure.removed_blocks)
        kept = 0 if gone else len(unit.kept)
        bar = Bar(_short(label), kept, unit.size)
        bars.setdefault(stage, []).append(bar)
    blocks: Dict[str, List[Tuple[str, bool]]] = {}
    for found in structure.stages:
        for block in found.blocks:
            stage, _ = split_name(block)
            bars.setdefault(stage, [])
            label = block.rpartition('.')[2]  # what fits into its square
            kept = block in found.kept
            blocks.setdefault(stage, []).append((label, kept))
    prefix = _common_prefix(list(bars))
    return [
        Group(
            stage[prefix:].lstrip('.') or stage or 'network',
            tuple(bars[stage]),
            tuple(blocks.get(stage, ())),
        )
        for stage in bars
    ]


def _is_removed(unit: UnitStructure, blocks: Sequence[str]) -> bool:
    """Whether every layer that produces the channels is removed."""
    return all(
        any(layer.layer.startswith(f'{block}.') for block in blocks)
        for layer in unit.outputs
    )


def _short(label: str) -> str:
    """A layer name without the conv inside of a ConvModule."""
    return label[: -len('.conv')] if label.endswith('.conv') else label


def _common_prefix(names: Sequence[str]) -> int:
    """Length of the first part of the names if all share it, else 0."""
    first = {name.split('.')[0] for name in names}
    return len(first.pop()) if len(first) == 1 else 0
