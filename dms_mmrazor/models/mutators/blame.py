"""Find out which units make a search and its export disagree."""

import re
from typing import Callable, Dict, List, Sequence

MOST_TRIALS = 60
"""Comparisons after which what is left is blamed together."""


def find_guilty(
    names: Sequence[str], fails: Callable[[List[str]], bool]
) -> List[str]:
    """The smallest families of units without which nothing fails.

    Units of a family differ in numbers alone (the same place in several
    blocks). Families are halved until each that fails by itself is found.

    Args:
        names (Sequence[str]): All units; together they fail.
        fails (Callable): Whether some of them fail, all others at full
            size.

    Returns:
        list[str]: Guilty units.
    """
    families: Dict[str, List[str]] = {}
    for name in names:
        families.setdefault(family(name), []).append(name)
    trials = 0

    def fail(keys: Sequence[str]) -> bool:
        nonlocal trials
        trials += 1
        return fails([name for key in keys for name in families[key]])

    def search(keys: List[str]) -> List[str]:
        if len(keys) == 1 or trials >= MOST_TRIALS:
            return keys
        half = len(keys) // 2
        parts = (keys[:half], keys[half:])
        guilty = [key for part in parts if fail(part) for key in search(part)]
        return guilty or keys  # only together they fail

    found = search(list(families))
    return [name for key in found for name in families[key]]


def family(name: str) -> str:
    """A name with its numbers replaced by ``*``."""
    return re.sub(r'\d+', '*', name)


def as_patterns(guilty: Sequence[str], names: Sequence[str]) -> List[str]:
    """Short patterns for some of the names that match no other ones.

    Args:
        guilty (Sequence[str]): Some of ``names``.
        names (Sequence[str]): All names.
    """
    others = {family(name) for name in names if name not in set(guilty)}
    families = [family(name) for name in guilty]
    patterns = [
        name if key in others or families.count(key) == 1 else key
        for name, key in zip(guilty, families)
    ]
    return list(dict.fromkeys(patterns))
