"""Targets as users write them, checked before training."""

from typing import Any, Dict, Mapping, Optional, Sequence, Union

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.supernet.resources import RESOURCES, Target
from dms_mmrazor.supernet.search_space import EXCLUDED

_CALLED = {
    'macs': ('mac', 'flop', 'gflop', 'gmac', 'madd', 'mult'),
    'params': ('param', 'weight', 'size'),
    'latency': ('laten', 'time', 'ms', 'speed', 'fps'),
}
"""How people call a resource, by its name here: beginnings of words."""


def check_reachable(
    kind: str,
    target: float,
    supernet: float,
    smallest: float,
    key: str,
    largest: Optional[float] = None,
    held: str = '',
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
        held (str): What is not searched and costs the most, if that is why
            it cannot be smaller. Defaults to ''.

    Raises:
        DMSError: It shows the smallest and the largest reachable and the
            supernet's value.
    """
    largest = supernet if largest is None else largest
    text = RESOURCES[kind].format
    wanted = f'`{key}`: {text(target)} {kind}'
    table = (
        f'smallest reachable {text(smallest)}, largest {text(largest)}, '
        f'supernet {text(supernet)}'
    )
    if 1 < target <= 100 and target < smallest:
        table += (
            '; numbers above 1 are absolute, ratios are in (0, 1]: '
            f"'{target:g}%' or {target / 100:g}"
        )
    if target > supernet * (1 + 1e-9):
        raise DMSError(
            f'{wanted} is more than the supernet has ({table}). Lower the '
            'target or enlarge the supernet.'
        )
    if target < smallest * (1 - 1e-9):
        raise DMSError(
            f'{wanted} cannot be reached ({table}). {held}Raise the target, '
            'or lower `min_ratio`, `min_blocks` or `divisor`.'
        )


def as_targets(
    target: Union[Target, Mapping[str, Target]],
    resource: str,
    owner: str = 'ResourceHook',
) -> Dict[str, Target]:
    """Targets by kind; a single target belongs to ``resource``.

    Raises:
        DMSError: If there is none, or ``resource`` is a kind that a mapping
            does not have.
    """
    if isinstance(target, Mapping):
        if not target:
            raise DMSError(
                f'{owner}: `target` is empty; set one as in dict(macs=0.5).'
            )
        if resource != 'macs' and resource not in target:
            raise DMSError(
                f'{owner}: `resource`={resource!r} is the kind of a single '
                f'target, and `target` has {list(target)}: remove '
                '`resource`, or add its target.'
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
            raise _unknown_kind(kind, mutator, owner)
        key = f'{owner}.{name} ({kind})'
        whole = mutator.table.full[kind]
        targets[kind] = RESOURCES[kind].parse(value, whole, key)
        smallest, largest = mutator.table.range(kind, divisor)
        held = held_text(mutator) if kind == 'macs' else ''
        check_reachable(
            kind, targets[kind], whole, smallest, key, largest, held
        )
    return targets


def _unknown_kind(kind: Any, mutator: DMSMutator, owner: str) -> DMSError:
    """What to say of a target whose kind there is not."""
    known = list(dict.fromkeys([*mutator.table.full, 'latency']))
    meant = next((k for k, words in _CALLED.items() if _said(kind, words)), '')
    question = f' Did you mean {meant!r}?' if meant in known else ''
    return DMSError(
        f'{owner}: unknown resource {kind!r} of `target` or `resource`; '
        f'known: {known}.{question}'
    )


def _said(kind: Any, words: Sequence[str]) -> bool:
    """Whether a text begins with one of some words, in any case."""
    return str(kind).lower().startswith(tuple(words))


def held_text(mutator: DMSMutator) -> str:
    """The layers that keep a target out of reach, if it is they.

    Args:
        mutator (DMSMutator): Of a prepared supernet.

    Returns:
        str: A sentence, and a space; empty if layers that are searched hold
        more than half of the least MACs.
    """
    held = {
        layer: mutator.layer_macs.get(layer.name, 0.0)
        for layer in mutator.report().layers
        if not layer.searched or EXCLUDED in (layer.inputs, layer.outputs)
    }
    smallest, whole = (
        mutator.table.range('macs')[0],
        mutator.table.full['macs'],
    )
    if sum(held.values()) <= smallest / 2:
        return ''
    largest = sorted(held, key=lambda layer: -held[layer])
    # Why, too: who gets no search has none to ask for its report.
    why = f'{largest[0].inputs}; {largest[0].outputs}'
    shown = [f'`{layer.name}` {held[layer] / whole:.1%}' for layer in largest]
    shown[0] += f' ({why})'
    return (
        f'{sum(held.values()) / whole:.1%} of the MACs are in layers that are '
        f'not searched, or on one side alone: {", ".join(shown[:3])}. '
    )


def as_weights(
    loss_weight: Union[float, Mapping[str, float]],
    targets: Mapping[str, Target],
    owner: str = 'ResourceHook',
) -> Dict[str, float]:
    """Weights λ_r by kind, in the order of the targets.

    Args:
        loss_weight (float | dict): One for all, or by kind; kinds that it
            does not name have 1.
        targets (Mapping[str, Target]): Targets by kind.
        owner (str): Whose setting it is, for messages. Defaults to
            'ResourceHook'.

    Raises:
        DMSError: If a kind has no target, or a weight is not positive and
            finite.
    """
    if not isinstance(loss_weight, Mapping):
        loss_weight = dict.fromkeys(targets, loss_weight)
    weights = {**dict.fromkeys(targets, 1.0), **loss_weight}
    for kind, weight in weights.items():
        if kind not in targets:
            raise DMSError(
                f'{owner}: `loss_weight` names {kind!r}, which has '
                f'no target; targets: {list(targets)}.'
            )
        is_number = isinstance(weight, (int, float)) and weight is not True
        if not (is_number and 0 < weight < float('inf')):
            raise DMSError(
                f'{owner}: `loss_weight` of {kind} must be positive '
                f'and finite, got {weight!r}.'
            )
    return weights


def check_counts(owner: str = 'ResourceHook', **values: Any) -> None:
    """Raise DMSError unless all settings are whole numbers >= 1."""
    for key, value in values.items():
        is_int = isinstance(value, int) and not isinstance(value, bool)
        if not is_int or value < 1:
            raise DMSError(
                f'{owner}: `{key}` must be an int >= 1, got {value!r}.'
            )
