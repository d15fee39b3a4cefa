"""What a checkpoint remembers of its search, to notice changes."""

from typing import Any, Dict, Iterator, Mapping

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.algorithms import DMSAlgorithm

KEY = 'dms_search'
"""Where the settings are in a checkpoint."""


def space_of(algorithm: DMSAlgorithm) -> Dict[str, Any]:
    """Units and stages with their sizes, steps and limits, in order."""
    mutator = algorithm.mutator
    names = [unit.name for unit in [*mutator.units, *mutator.depth_units]]
    operators = mutator.topk.operators
    return {
        name: [operator.size, operator.step, *operator[-2:]]
        for name, operator in zip(names, operators)
    }


def check_space(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise unless the importances of a checkpoint mean the same units.

    Raises:
        DMSError: It names the first unit that differs.
    """
    for name in [*old, *new]:
        sizes = [list(space.get(name, []))[:2] for space in (old, new)]
        if sizes[0] != sizes[1]:
            texts = [_describe(size) for size in sizes]
            raise DMSError(
                f'the search cannot be resumed: unit {name!r} had '
                f'{texts[0]} in the checkpoint and has {texts[1]} in the '
                'config.'
            )
    if list(old) != list(new):
        raise DMSError(
            'the search cannot be resumed: its units have another order.'
        )


def _describe(size: Any) -> str:
    return f'{size[0]} elements of step {size[1]}' if size else 'no elements'


def changed_settings(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[str]:
    """A line per setting that differs: 'key: old → new'."""
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            yield f'{key}: {old.get(key)!r} → {new.get(key)!r}'
