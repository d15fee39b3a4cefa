"""The file of a latency table: plain data, checked when it is read."""

import math
from typing import Any, Callable, Dict, Tuple

from dms_mmrazor.core import LatencyFit
from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import (
    as_count,
    as_mapping,
    read_field,
    read_yaml,
    write_yaml,
)
from dms_mmrazor.latency.table import (
    Device,
    LatencyTable,
    LayerKind,
    Point,
)

FORMAT = 'dms_mmrazor latency 1'

FIELDS = ('constant', 'input', 'output', 'product')
"""Parts of f: independent of widths, ∝ input, ∝ output, ∝ both."""


def save_latency_table(table: LatencyTable, path: str) -> None:
    """Write a table; a reader never sees half of it."""
    data = {
        'format': FORMAT,
        'device': dict(table.device._asdict()),
        'input_size': list(table.input_size),
        'divisor': table.divisor,
        'supernet': round(table.supernet, 5),
        'rounds': table.rounds,
        'held_out': {k: round(v, 4) for k, v in table.held_out.items()},
        'rounding': {d: round(r, 4) for d, r in table.rounding.items()},
        'kinds': {kind.name: _kind_to_dict(kind) for kind in table.kinds},
    }
    write_yaml(data, path, inline_lists=True)


def _kind_to_dict(kind: LayerKind) -> Dict[str, Any]:
    return {
        'layers': list(kind.layers),
        'channels': list(kind.channels),
        'full': float(f'{kind.fit.full:.6g}'),
        'shares': {
            key: float(f'{share:.6g}')
            for key, share in zip(FIELDS, kind.fit.shares)
        },
        'error': round(kind.fit.error, 4),
        'worst': round(kind.fit.worst, 4),
        'points': [[a, b, float(f'{t:.4g}')] for a, b, t in kind.points],
    }


def load_latency_table(path: str) -> LatencyTable:
    """Read a latency table.

    Raises:
        DMSError: If it does not exist or a field is missing or wrong; the
            field is named.
    """
    raw = read_yaml(path, 'latency table')
    if not isinstance(raw, dict) or raw.get('format') != FORMAT:
        raise DMSError(
            f'{path} is not a latency table: its first line must be '
            f'`format: {FORMAT}`.'
        )

    def read(key: str, parse: Callable[[Any], Any]) -> Any:
        return read_field(raw, path, key, parse)

    kinds = read('kinds', as_mapping)
    return LatencyTable(
        _device_from_dict(path, read('device', as_mapping)),
        read('input_size', _list_of(4, _positive_int)),
        read('divisor', _positive_int),
        read('supernet', _positive),
        read('rounds', _positive_int),
        read('held_out', _held_out),
        read('rounding', _rounding),
        tuple(_kind_from_dict(path, *item) for item in kinds.items()),
    )


def _device_from_dict(path: str, raw: Any) -> Device:
    where = f'{path}: device'
    kind = read_field(raw, where, 'type', str)
    if kind not in ('cpu', 'cuda'):
        raise DMSError(f'{where}: `type` must be cpu or cuda, got {kind!r}.')
    return Device(
        kind,
        read_field(raw, where, 'name', str),
        read_field(raw, where, 'threads', _positive_int),
        read_field(raw, where, 'torch', str),
    )


def _kind_from_dict(path: str, name: Any, raw: Any) -> LayerKind:
    where = f'{path}: kind {str(name)!r}'
    shares = read_field(raw, where, 'shares', as_mapping)
    fit = LatencyFit(
        read_field(raw, where, 'full', _positive),
        tuple(read_field(shares, where, k, _not_negative) for k in FIELDS),
        read_field(raw, where, 'error', _not_negative),
        read_field(raw, where, 'worst', _not_negative),
    )
    if not math.isclose(sum(fit.shares), 1, abs_tol=1e-3):
        raise DMSError(f'{where}: the sum of `shares` must be 1.')
    return LayerKind(
        str(name),
        read_field(raw, where, 'layers', _names),
        read_field(raw, where, 'channels', _list_of(2, _positive_int)),
        fit,
        read_field(raw, where, 'points', _points),
    )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f'{value!r} is not a number')
    if not math.isfinite(value):
        raise ValueError(f'{value} is not finite')
    return float(value)


def _not_negative(value: Any) -> float:
    if _number(value) < 0:
        raise ValueError(f'{value} is negative')
    return float(value)


def _positive(value: Any) -> float:
    if _number(value) <= 0:
        raise ValueError(f'{value} is not positive')
    return float(value)


def _positive_int(value: Any) -> int:
    if as_count(value) < 1:
        raise ValueError('it must be at least 1')
    return value


def _list_of(
    length: int, parse: Callable[[Any], Any]
) -> Callable[[Any], Tuple[Any, ...]]:
    """A parser of lists of a length."""

    def parse_list(value: Any) -> Tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != length:
            raise ValueError(f'{value!r} is not a list of {length}')
        return tuple(parse(entry) for entry in value)

    return parse_list


def _names(value: Any) -> Tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError('it is not a list of layers')
    return tuple(str(name) for name in value)


def _points(value: Any) -> Tuple[Point, ...]:
    if not isinstance(value, list):
        raise ValueError('it is not a list of [input, output, ms]')
    rows = [_list_of(3, _positive)(row) for row in value]
    return tuple((int(a), int(b), t) for a, b, t in rows)


def _held_out(value: Any) -> Dict[str, float]:
    keys = ('structures', 'mean', 'worst')
    value = as_mapping(value)
    if set(value) != set(keys):
        raise ValueError(f'its fields must be {keys}')
    numbers = {key: _not_negative(value[key]) for key in keys[1:]}
    return {'structures': as_count(value['structures']), **numbers}


def _rounding(value: Any) -> Dict[int, float]:
    return {
        _positive_int(d): _positive(r) for d, r in as_mapping(value).items()
    }
