"""Rank candidates of one budget by a short training, before the long one.

What needs scipy is imported when it is asked for: the plugin registers parts
of this package.
"""

from importlib import import_module
from typing import Any

__all__ = ['PlainRecipe', 'Ranking', 'TrainingFitness', 'rank_subnets']

_LAZY = {
    'PlainRecipe': 'trainings',
    'Ranking': 'report',
    'TrainingFitness': 'fitness',
    'rank_subnets': 'rank',
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_LAZY[name]}'), name)
