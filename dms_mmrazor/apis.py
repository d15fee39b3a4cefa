"""Tells where the names of `dms_mmrazor.apis` have gone; nothing else.

It was taken apart when modules moved; drop this file with the next version.
"""

from typing import Any

PLACES = {
    'ExportedSubnet': 'search.export',
    'FittedStructure': 'search.fitted_structure',
    'build_algorithm': 'engine.search_config',
    'export_checkpoint': 'cli.checkpoint_export',
    'export_onnx': 'subnet.onnx_export',
    'export_subnet': 'search.export',
    'fit_choices': 'search.fitted_structure',
    'fit_structure': 'search.fitted_structure',
    'plain_copy': 'supernet.plain',
    'save_subnet': 'search.export',
    'uniform_structure': 'search.export',
}
"""Name → module of this package."""


def __getattr__(name: str) -> Any:
    """Raise ImportError with the line to write instead."""
    if name.startswith('__'):  # what Python itself asks a module for
        raise AttributeError(name)
    advice = 'see "Modules moved" in CHANGELOG.md.'
    if name in PLACES:
        place = f'dms_mmrazor.{PLACES[name]}'
        advice = f'write `from {place} import {name}`.'
    raise ImportError(f'`dms_mmrazor.apis` is gone: {advice}')
