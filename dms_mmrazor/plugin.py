"""Register everything of this package with MMRazor.

The only import that a config needs::

    custom_imports = dict(imports=['dms_mmrazor.plugin'])
"""

from dms_mmrazor import engine, models
from dms_mmrazor.plugins.transformers import register
from dms_mmrazor.ranking import fitness

__all__ = ['engine', 'fitness', 'models', 'register']
