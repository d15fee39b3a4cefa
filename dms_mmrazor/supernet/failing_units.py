"""Find out which units make a search and its export disagree."""

import re
from typing import Callable, Collection, Dict, List, Sequence

MOST_TRIALS = 150
"""Comparisons after which what is left of a half is blamed together."""

Selects = Callable[[str], Collection[str]]
"""Units and stages that a name or pattern stands for."""


def find_failing_units(
    names: Sequence[str], fails: Callable[[List[str]], bool]
) -> List[str]:
    """A smallest set of units without which nothing fails.

    Beginning with none, units are added in halves, and in halves of these
    where they fail with what is there already. Units of a family differ in
    numbers alone (the same place in several blocks) and are added together,
    as most of them are guilty together or not at all.

    Args:
        names (Sequence[str]): All units; together they fail.
        fails (Callable): Whether some of them fail, all others at full
            size.

    Returns:
        list[str]: Guilty units; any one of them fails with all innocent
        ones, unless there were too many trials.
    """
    families: Dict[str, List[str]] = {}
    for name in names:
        families.setdefault(family(name), []).append(name)
    innocent: List[str] = []
    trials = 0

    def search(groups: List[List[str]], known: bool = False) -> List[str]:
        """Guilty ones of some groups; ``known``: there are some."""
        nonlocal trials
        some = [name for group in groups for name in group]
        trials += not known
        if not known and not fails([*innocent, *some]):
            innocent.extend(some)
            return []
        if len(some) == 1 or trials >= MOST_TRIALS:
            return some
        if len(groups) == 1:
            groups = [[name] for name in some]
        half = len(groups) // 2
        first = search(groups[:half])
        return first + search(groups[half:], known=not first)

    return search(list(families.values()), known=True)


def family(name: str) -> str:
    """A name with its numbers replaced by ``*``."""
    return re.sub(r'\d+', '*', name)


def as_patterns(
    guilty: Sequence[str], names: Sequence[str], selects: Selects
) -> List[str]:
    """Short patterns for some of the names that match no other ones.

    Args:
        guilty (Sequence[str]): Some of ``names``.
        names (Sequence[str]): All names.
        selects (Callable): What a pattern stands for.
    """
    innocent = set(names) - set(guilty)
    patterns: List[str] = []
    for name in guilty:
        if any(name in selects(pattern) for pattern in patterns):
            continue
        found = set(selects(family(name)))
        several = len(found & set(guilty)) > 1
        patterns.append(
            family(name) if several and not found & innocent else name
        )
    return patterns
