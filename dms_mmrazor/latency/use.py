"""Bring a latency table into a search, if it is the right one."""

from typing import Any, Iterable, Optional

import torch

from dms_mmrazor.errors import DMSError
from dms_mmrazor.latency.file import load_latency_table
from dms_mmrazor.latency.measure import device_name
from dms_mmrazor.latency.table import LatencyTable
from dms_mmrazor.models.mutators import DMSMutator

_TOOL = 'tools/profile_latency.py'


def prepare_latency(
    mutator: DMSMutator,
    wanted: Iterable[str],
    table: Any = None,
    device: Optional[str] = None,
    owner: str = 'ResourceHook',
) -> Optional[LatencyTable]:
    """Make latency a resource of a search if its config has a table.

    Args:
        mutator (DMSMutator): Of a prepared supernet.
        wanted (Iterable[str]): Kinds of resources with a target.
        table (str, optional): ``latency_table`` of the search. Defaults to
            None.
        device (str, optional): ``latency_device``. Defaults to None.
        owner (str): Whose settings they are, for messages. Defaults to
            'ResourceHook'.

    Returns:
        LatencyTable, optional: The table, if there is one.

    Raises:
        DMSError: If latency has a target but no table, or the table cannot
            be used for this search.
    """
    if table is None:
        if device is not None:
            raise DMSError(
                f'{owner}: `latency_device`={device!r} is the device of a '
                'latency table, and there is no `latency_table`: add it, or '
                'remove `latency_device`.'
            )
        if 'latency' in wanted:
            raise DMSError(
                f'{owner}: a latency target needs `latency_table`, a '
                f'file that {_TOOL} makes of this config, or '
                '`dms_mmrazor.latency.profile_latency` of a model.'
            )
        return None
    for key, value in (('latency_table', table), ('latency_device', device)):
        if not isinstance(value, (str, type(None))):
            raise DMSError(f'{owner}: `{key}` must be a text, got {value!r}.')
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


def use_latency_table(
    mutator: DMSMutator, path: str, device: Optional[str] = None
) -> LatencyTable:
    """Make the latency of a table a resource of a search.

    Args:
        mutator (DMSMutator): Of a prepared supernet.
        path (str): The table.
        device (str, optional): Part of the name of the device that the
            table must be of. Defaults to None, the device at hand.

    Raises:
        DMSError: If the file is broken, or of another network or device.
    """
    table = load_latency_table(path)
    check_device(table, path, device)
    check_network(table, path, mutator)
    mutator.set_latency(table.fits)
    mutator.table.notes['latency'] = {
        'unit': 'ms',
        'device': str(table.device),
        'input_size': list(table.input_size),
    }
    return table


def check_device(
    table: LatencyTable, path: str, wanted: Optional[str] = None
) -> None:
    """Raise unless a table is of the wanted device, or of that at hand.

    Raises:
        DMSError: It names both devices.
    """
    if wanted is not None:
        if wanted.lower() not in table.device.name.lower():
            raise DMSError(
                f'latency table {path} was measured on {table.device}, which '
                f'is not `ResourceHook.latency_device` {wanted!r}.'
            )
        return
    hint = (
        'measure again by tools/profile_latency.py, or say that you mean that '
        f'device by `ResourceHook.latency_device={table.device.name!r}`.'
    )
    if table.device.type == 'cuda' and not torch.cuda.is_available():
        raise DMSError(
            f'latency table {path} was measured on {table.device}, and this '
            f'machine has no GPU: {hint}'
        )
    name = device_name(torch.device(table.device.type))
    if name != table.device.name:
        raise DMSError(
            f'latency table {path} was measured on {table.device}, this '
            f'machine has {name!r}: {hint}'
        )


def is_here(table: LatencyTable) -> bool:
    """Whether a table was measured on the device at hand."""
    try:
        check_device(table, '')
    except DMSError:
        return False
    return True


def check_network(table: LatencyTable, path: str, mutator: DMSMutator) -> None:
    """Raise unless a table has the layers of a supernet and no others.

    Raises:
        DMSError: It names the first layer that differs.
    """
    hint = 'it is of another network; measure it by tools/profile_latency.py.'
    size = tuple(mutator.analyzer.input_size[1:])
    if table.input_size[1:] != size:
        raise DMSError(
            f'latency table {path} was measured with inputs of '
            f'{table.input_size[1:]}, the search has {size} (`mutator.'
            f'parse_cfg.demo_input`): {hint}'
        )
    widths = {layer.name: layer.channels for layer in mutator.layer_widths}
    known = {n: k.channels for k in table.kinds for n in k.layers}
    for name, channels in widths.items():
        if name not in known:
            raise DMSError(f'latency table {path} lacks layer {name}: {hint}')
        if known[name] != channels:
            raise DMSError(
                f'latency table {path} has layer {name} with {known[name]} '
                f'channels, the supernet with {channels}: {hint}'
            )
    extra = [name for name in known if name not in widths]
    if extra:
        raise DMSError(
            f'latency table {path} has layer {extra[0]}, which the supernet '
            f'lacks: {hint}'
        )
