"""How much larger which part becomes, as configs say it."""

from typing import Any, Dict, Mapping, Sequence

from dms_mmrazor.errors import DMSError
from dms_mmrazor.supernet.search_space import matches


def factors_of(
    key: str, wanted: Mapping[str, Any], known: Sequence[str], kind: str
) -> Dict[str, float]:
    """The factor of each part; the last matching pattern counts.

    Args:
        key (str): Config key, for messages.
        wanted (Mapping[str, float]): Name or pattern (``*``, ``?``) →
            factor >= 1.
        known (Sequence[str]): Names of all parts.
        kind (str): What they are, in the plural, for messages.

    Raises:
        DMSError: If a pattern matches nothing or a factor is no number
            >= 1.
    """
    factors: Dict[str, float] = {}
    for pattern, factor in wanted.items():
        _check_factor(f'{key}[{pattern!r}]', factor)
        names = [name for name in known if matches(name, pattern)]
        if not names:
            raise DMSError(
                f'`{key}` names {pattern!r}, which matches none of the '
                f'{kind}: {", ".join(known) or "there are none"}.'
            )
        factors.update(dict.fromkeys(names, factor))
    return factors


def _check_factor(key: str, factor: Any) -> None:
    is_number = isinstance(factor, (int, float)) and factor is not True
    if not is_number or not 1 <= factor < float('inf'):
        raise DMSError(
            f'`{key}` must be a factor >= 1, got {factor!r}: a supernet is '
            'larger than its model.'
        )
