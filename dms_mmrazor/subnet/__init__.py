"""The found structure, and plain models of that structure."""

from dms_mmrazor.subnet.structure import (
    LayerSlice,
    StageStructure,
    Structure,
    UnitStructure,
    load_structure,
    save_structure,
)
from dms_mmrazor.subnet.surgery import prune, pruned_copy

__all__ = [
    'LayerSlice',
    'StageStructure',
    'Structure',
    'UnitStructure',
    'load_structure',
    'prune',
    'pruned_copy',
    'save_structure',
]
