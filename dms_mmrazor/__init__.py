"""Differentiable Model Scaling, for OpenMMLab and for plain PyTorch.

Importing this package imports neither torch nor an OpenMMLab package, so
that ``pip``, ``mim`` and ``setup.py`` can look at it at no cost; what a
training loop of one's own needs is imported when it is asked for.
"""

from importlib import import_module
from typing import Any

from .version import __version__

__all__ = [
    'DMSError',
    'Search',
    '__version__',
    'apply_structure',
    'write_card',
]

_LAZY = {
    'DMSError': 'dms_mmrazor.errors',
    'Search': 'dms_mmrazor.search',
    'apply_structure': 'dms_mmrazor.search',
    'write_card': 'dms_mmrazor.visualization',
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_LAZY[name]), name)
