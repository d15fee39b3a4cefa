"""What a user is told of a search that ended away from its target."""

from typing import Iterator, Mapping

from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.search.export import ExportedSubnet

FAR = 0.02
"""A search that ends further away from its target than this is told so."""

CLOSE = {False: 0.005, True: 0.01}
"""What is promised of an export, without and with a divisor."""

_NO_FORWARD = (
    'Search: `step()` needs a forward pass of `search.model` in training mode '
    'and `loss.backward()` before it, and no more than total_steps={} calls.'
)
_EVALUATED = (
    'Search: `step()` needs a forward pass in training mode before it, but '
    '`search.model` ran in evaluation mode: call `model.train()` before.'
)

NOT_TRACED = (
    'Search: `search.model` is a supernet, whose masks are no part of an ONNX '
    'file or of a trace: call `search.export()` and use its `model`.'
)
"""Why a supernet cannot be traced by torch."""

_RATES = {
    'ResourceHook': '`model.structure_step.lr`',
    'Search': "`Search.structure_step['lr']`",
}
_DIVISORS = {
    'ResourceHook': '`ResourceHook.divisor`',
    'Search': '`divisor` of `Search.export`',
}


def warn_if_far(
    mutator: DMSMutator,
    targets: Mapping[str, float],
    owner: str = 'ResourceHook',
) -> Iterator[str]:
    """Warnings for targets that the search itself did not end at.

    Args:
        mutator (DMSMutator): After a search.
        targets (Mapping[str, float]): Final targets, absolute.
        owner (str): Whose settings they are, 'ResourceHook' or 'Search'.
            Defaults to 'ResourceHook'.
    """
    ratios = {
        kind: mutator.resource(kind, hard=False) / target
        for kind, target in targets.items()
    }
    # Of several targets the nearest one is what counts.
    nearest = max(ratios, key=lambda kind: ratios[kind])
    if ratios[nearest] > 1 + FAR:
        yield (
            f'The search ended {ratios[nearest] - 1:.1%} above its {nearest} '
            'target; rounding cuts the rest. Search longer, or raise '
            f'{_RATES[owner]} if you have set it.'
        )
    if ratios[nearest] < 1 - FAR:
        yield (
            f'The search ended {1 - ratios[nearest]:.1%} below its {nearest} '
            'target; rounding widens all units to it. Refine longer by '
            f'lowering `{owner}.decay`, or lower {_RATES[owner]} if you have '
            'set it.'
        )


def unfinished_warning(done: int, total: int) -> str:
    """What an export in the middle of a search is not.

    Args:
        done (int): Steps that were made.
        total (int): Steps of the whole search.
    """
    return (
        f'Search: {done} of {total} steps are made: the subnet is not cut to '
        'its target. `total_steps` counts optimizer steps, and `step()` is '
        'called after each of them.'
    )


def no_forward(total: int, evaluated: bool) -> str:
    """Why a step is not possible before a forward pass.

    Args:
        total (int): Steps of the whole search.
        evaluated (bool): Whether the model ran in evaluation mode, where
            gradients were asked for, since the last step.
    """
    return _EVALUATED if evaluated else _NO_FORWARD.format(total)


def warn_if_loose(
    subnet: ExportedSubnet, divisor: int, owner: str = 'ResourceHook'
) -> Iterator[str]:
    """A warning if no allowed widths come as close as is promised.

    Args:
        subnet (ExportedSubnet): What was exported.
        divisor (int): Of its widths.
        owner (str): As above. Defaults to 'ResourceHook'.
    """
    used = {
        kind: row['subnet'] / row['target']
        for kind, row in subnet.structure.resources.items()
        if 'target' in row
    }
    if not used or max(used.values()) >= 1 - CLOSE[divisor > 1]:
        return
    kind = max(used, key=lambda name: used[name])
    how = f'lower {_DIVISORS[owner]}' if divisor > 1 else 'search again'
    yield (
        f'The subnet is {1 - used[kind]:.1%} under its {kind} target: no '
        f'allowed widths were found that come closer ({how} if that matters).'
    )
