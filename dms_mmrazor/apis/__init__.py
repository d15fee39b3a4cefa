"""What tools and hooks call."""

from dms_mmrazor.apis.checkpoint_export import export_checkpoint
from dms_mmrazor.apis.onnx_export import export_onnx
from dms_mmrazor.apis.search_config import build_algorithm, override_target
from dms_mmrazor.search.export import (
    ExportedSubnet,
    export_subnet,
    save_subnet,
    uniform_structure,
)
from dms_mmrazor.search.fitted_structure import (
    FittedStructure,
    fit_choices,
    fit_structure,
)
from dms_mmrazor.search.plain import plain_copy

__all__ = [
    'ExportedSubnet',
    'FittedStructure',
    'build_algorithm',
    'export_checkpoint',
    'export_onnx',
    'export_subnet',
    'fit_choices',
    'fit_structure',
    'override_target',
    'plain_copy',
    'save_subnet',
    'uniform_structure',
]
