"""The latency table that a search's config names."""

from typing import Any, Iterable, Optional

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.search.latency import LatencyTable, use_latency_table

_TOOL = 'tools/profile_latency.py'


def prepare_latency(
    mutator: DMSMutator,
    wanted: Iterable[str],
    table: Any = None,
    device: Optional[str] = None,
) -> Optional[LatencyTable]:
    """Make latency a resource of a search if its config has a table.

    Args:
        mutator (DMSMutator): Of a prepared supernet.
        wanted (Iterable[str]): Kinds of resources with a target.
        table (str, optional): ``ResourceHook.latency_table``. Defaults to
            None.
        device (str, optional): ``ResourceHook.latency_device``. Defaults
            to None.

    Returns:
        LatencyTable, optional: The table, if there is one.

    Raises:
        DMSError: If latency has a target but no table, or the table cannot
            be used for this search.
    """
    if table is None:
        if 'latency' in wanted:
            raise DMSError(
                'ResourceHook: a latency target needs `latency_table`, a '
                f'file that {_TOOL} makes of this config.'
            )
        return None
    for key, value in (('latency_table', table), ('latency_device', device)):
        if not isinstance(value, (str, type(None))):
            raise DMSError(
                f'ResourceHook: `{key}` must be a text, got {value!r}.'
            )
    return use_latency_table(mutator, table, device)


def divisor_warning(table: LatencyTable, divisor: int) -> Optional[str]:
    """What to say of widths that a table was not measured with, if any."""
    if divisor % table.divisor == 0:
        return None
    slower = table.rounding.get(divisor)
    cost = f'; here they took {slower:.2f} times that' if slower else ''
    return (
        f'The latency table holds for widths by {table.divisor}, '
        f'`ResourceHook.divisor` is {divisor}: what is exported may be slower '
        f'than predicted{cost}.'
    )
