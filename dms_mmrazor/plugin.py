"""Register everything of this package with MMRazor.

The only import that a config needs::

    custom_imports = dict(imports=['dms_mmrazor.plugin'])
"""

from dms_mmrazor import engine
from dms_mmrazor.models import algorithms, enlarge, mutables, mutators, units
from dms_mmrazor.plugins.transformers import (
    causal_lm,
    folder_hook,
    lora,
    tokens,
)
from dms_mmrazor.ranking import fitness

__all__ = [
    'algorithms',
    'causal_lm',
    'engine',
    'enlarge',
    'fitness',
    'folder_hook',
    'lora',
    'mutables',
    'mutators',
    'tokens',
    'units',
]
