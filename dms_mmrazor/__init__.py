"""Differentiable Model Scaling for OpenMMLab.

Importing this package imports neither torch nor an OpenMMLab package, so
that ``pip``, ``mim`` and ``setup.py`` can look at it at no cost.
"""

from .version import __version__

__all__ = ['__version__']
