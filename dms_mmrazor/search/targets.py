"""Targets as users write them, checked before training."""

import re
from typing import Dict, Mapping, Optional, Union

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator

Target = Union[int, float, str]

_PERCENT = '%'
_SUFFIXES = {'': 1.0, 'K': 1e3, 'M': 1e6, 'G': 1e9}
_TIMES = {'': 1.0, 'us': 1e-3, 'ms': 1.0, 's': 1e3}  # in milliseconds
_ABSOLUTE = re.compile(
    r'^\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*|%)\s*$'
)


def parse_target(
    target: Target, supernet: float, key: str = 'target', kind: str = 'macs'
) -> float:
    """A target as an absolute resource.

    Args:
        target (int | float | str): A number in (0, 1] or a text such as
            '50%' is a ratio of the supernet; a larger one or a text such as
            '1G' or '2.5M' (for a latency '3ms' or '800us') is absolute.
        supernet (float): Resource of the supernet.
        key (str): Config key, for messages. Defaults to 'target'.
        kind (str): Resource; latencies are in milliseconds. Defaults to
            'macs'.

    Raises:
        DMSError: If it cannot be read or is not positive.
    """
    is_latency = kind == 'latency'
    suffixes = _TIMES if is_latency else _SUFFIXES
    examples = "'3ms' or '800us'" if is_latency else "'1G', '300M' or 4.1e9"
    wanted = (
        'a ratio of the supernet in (0, 1] or an absolute such as ' + examples
    )
    suffixes = {**suffixes, _PERCENT: supernet / 100}
    if isinstance(target, str):
        match = _ABSOLUTE.match(target)
        if not match or match.group(2) not in suffixes:
            raise DMSError(f'`{key}` must be {wanted}; got {target!r}.')
        value = float(match.group(1)) * suffixes[match.group(2)]
        value = (
            supernet * value if value <= 1 and not match.group(2) else value
        )
    elif isinstance(target, (int, float)) and not isinstance(target, bool):
        value = supernet * target if 0 < target <= 1 else float(target)
    else:
        raise DMSError(f'`{key}` must be {wanted}; got {target!r}.')
    if not 0 < value < float('inf'):
        raise DMSError(f'`{key}` must be {wanted}; got {target!r}.')
    return value


def check_reachable(
    kind: str,
    target: float,
    supernet: float,
    smallest: float,
    key: str,
    largest: Optional[float] = None,
) -> None:
    """Raise unless a target lies within the search space.

    Args:
        kind (str): Kind of the resource.
        target (float): Absolute target.
        supernet (float): Resource of the supernet.
        smallest (float): The smallest that can be exported.
        key (str): Config key, for messages.
        largest (float, optional): The largest that can be exported.
            Defaults to None, the supernet's.

    Raises:
        DMSError: It shows the smallest and the largest reachable and the
            supernet's value.
    """
    largest = supernet if largest is None else largest
    wanted = f'`{key}`: {format_resource(target, kind)} {kind}'
    table = (
        f'smallest reachable {format_resource(smallest, kind)}, largest '
        f'{format_resource(largest, kind)}, supernet '
        f'{format_resource(supernet, kind)}'
    )
    if 1 < target <= 100 and target < smallest:
        table += '; numbers above 1 are absolute, ratios are in (0, 1]'
    if target > supernet * (1 + 1e-9):
        raise DMSError(
            f'{wanted} is more than the supernet has ({table}). Lower the '
            'target or enlarge the supernet.'
        )
    if target < smallest * (1 - 1e-9):
        raise DMSError(
            f'{wanted} cannot be reached ({table}). Raise the target, or '
            'lower `min_ratio`, `min_blocks` or `divisor`.'
        )


def format_resource(value: float, kind: str = 'macs') -> str:
    """A number with a unit: 4100000000 → '4.1G'; a latency → '3.31ms'."""
    if kind == 'latency':
        return f'{value:.4g}ms'
    for suffix in ('G', 'M', 'K'):
        if abs(value) >= _SUFFIXES[suffix]:
            return f'{value / _SUFFIXES[suffix]:.4g}{suffix}'
    return f'{value:.4g}'


def as_targets(
    target: Union[Target, Mapping[str, Target]],
    resource: str,
    owner: str = 'ResourceHook',
) -> Dict[str, Target]:
    """Targets by kind; a single target belongs to ``resource``.

    Raises:
        DMSError: If there is none.
    """
    if isinstance(target, Mapping):
        if not target:
            raise DMSError(
                f'{owner}: `target` is empty; set one as in dict(macs=0.5).'
            )
        return dict(target)
    return {resource: target}


def resolve_targets(
    mutator: DMSMutator,
    wanted: Mapping[str, Target],
    divisor: int,
    owner: str = 'ResourceHook',
    name: str = 'target',
) -> Dict[str, float]:
    """Targets in absolute numbers.

    Args:
        mutator (DMSMutator): Of a prepared supernet.
        wanted (Mapping[str, Target]): As the config has them, by kind.
        divisor (int): Of the exported widths.
        owner (str): Whose `target` it is, for messages. Defaults to
            'ResourceHook'.
        name (str): Of the setting, for messages. Defaults to 'target'.

    Raises:
        DMSError: If one cannot be read or reached.
    """
    targets: Dict[str, float] = {}
    for kind, value in wanted.items():
        if kind not in mutator.table.full:
            raise DMSError(
                f'{owner}: unknown resource {kind!r}; known: '
                f'{list(mutator.table.full)}.'
            )
        key = f'{owner}.{name} ({kind})'
        whole = mutator.table.full[kind]
        targets[kind] = parse_target(value, whole, key, kind)
        smallest, largest = mutator.table.range(kind, divisor)
        check_reachable(kind, targets[kind], whole, smallest, key, largest)
    return targets
