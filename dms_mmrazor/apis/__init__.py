"""What tools and hooks call."""

from dms_mmrazor.apis.export import (
    ExportedSubnet,
    export_subnet,
    fit_choices,
    save_subnet,
    uniform_structure,
)
from dms_mmrazor.apis.plain import plain_copy

__all__ = [
    'ExportedSubnet',
    'export_subnet',
    'fit_choices',
    'plain_copy',
    'save_subnet',
    'uniform_structure',
]
