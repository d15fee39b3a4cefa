"""The found structure, and plain models of that structure."""

from dms_mmrazor.models.subnet.structure import (
    LayerSlice,
    StageStructure,
    Structure,
    UnitStructure,
    load_structure,
    save_structure,
)
from dms_mmrazor.models.subnet.sub_model import DMSSubModel
from dms_mmrazor.models.subnet.surgery import prune, pruned_copy

__all__ = [
    'DMSSubModel',
    'LayerSlice',
    'StageStructure',
    'Structure',
    'UnitStructure',
    'load_structure',
    'prune',
    'pruned_copy',
    'save_structure',
]
