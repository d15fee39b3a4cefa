"""Advice on the two hyperparameters of a search, from its first iterations.

Table 15 and section A.3.5: a small weight λ_r of the resource loss, with
which the task loss decides about the structure, and a learning rate of the
structure that is large enough to reach the target early. "Only observing the
resource decrease in the first epoch is enough to set these two
hyperparameters."
"""

import math
import statistics
from typing import List, NamedTuple, Sequence

__all__ = [
    'ADVICE_AFTER',
    'History',
    'advise',
    'advice_iteration',
    'too_coarse',
]

ADVICE_AFTER = 300
"""Iterations of the decay after which advice is given, at most."""

LR = '`optim_wrapper.paramwise_cfg.structure.lr`'
WEIGHT = '`ResourceHook.loss_weight`'
DECAY = '`ResourceHook.decay`'

_SHORTEST = 12
_BEHIND = 0.03
_JUMP = 0.04
_BEYOND = 0.05


class History(NamedTuple):
    """What a search logged in each iteration of its decay so far.

    Attributes:
        kind (str): Kind of the resource.
        current (Sequence[float]): Resource in any unit, > 0.
        target (Sequence[float]): Its target, in the same unit.
        resource_loss (Sequence[float]): λ_r · L_r.
        task_loss (Sequence[float]): Everything else in the loss.
    """

    kind: str
    current: Sequence[float]
    target: Sequence[float]
    resource_loss: Sequence[float]
    task_loss: Sequence[float]


def advice_iteration(warmup: float, decay: float) -> int:
    """Iteration, counted from 1, after which advice is given.

    Args:
        warmup (float): Iterations without a constraint.
        decay (float): Iterations in which the target falls; after half of
            them at the latest.
    """
    return math.ceil(warmup) + max(1, min(ADVICE_AFTER, int(decay / 2)))


def advise(
    history: History,
    others: Sequence[History] = (),
    told_coarse: bool = False,
) -> List[str]:
    """What to turn, and why.

    Args:
        history (History): Of at least a dozen iterations; of fewer nothing
            is said.
        others (Sequence[History]): Of other targets in the same iterations.
            Below its target is not too low where another one is nearer to
            its own. Defaults to ().
        told_coarse (bool): The user knows that steps are too large, so that
            nothing of :func:`too_coarse` is said. Defaults to False.

    Returns:
        list[str]: One line for each finding, with the config key to turn;
        empty if the search follows its target.
    """
    if len(history.current) < _SHORTEST:
        return []
    late = len(history.current) * 2 // 3
    distance = _distances(history)
    lines = _behind(history.kind, distance, late)
    if not told_coarse:
        lines += too_coarse(history, others)
    task = statistics.fmean(history.task_loss[late:])
    resource = statistics.fmean(history.resource_loss[late:])
    if resource > abs(task):
        instead = f', and raise {LR} instead' if lines else ''
        lines.append(
            f'The task loss ({task:.3g}) is dominated by the resource loss '
            f'of {history.kind} ({resource:.3g}), which then decides about '
            f'the structure: lower {WEIGHT}{instead}.'
        )
    return lines


def too_coarse(history: History, others: Sequence[History] = ()) -> List[str]:
    """The part of the advice that lowers the structure's learning rate.

    Args:
        history (History): See :func:`advise`.
        others (Sequence[History]): See :func:`advise`. Defaults to ().
    """
    if len(history.current) < _SHORTEST:
        return []
    distance = _distances(history)
    late = len(history.current) * 2 // 3
    nearest = max(
        statistics.fmean(_distances(each)[late:])
        for each in (history, *others)
    )
    return [
        *_jumps(history),
        *_beyond(history.kind, distance, late, nearest),
    ]


def _distances(history: History) -> List[float]:
    """Logarithms of the current resource relative to its target."""
    return [
        math.log(max(current, 1e-12) / target)
        for current, target in zip(history.current, history.target)
    ]


def _behind(kind: str, distance: Sequence[float], late: int) -> List[str]:
    """The structure cannot follow: it is above the target, ever more."""
    now = statistics.fmean(distance[late:])
    before = statistics.fmean(distance[late // 2 : late])
    if now < _BEHIND or now < before:
        return []
    return [
        f'The {kind} target falls faster than the structure can follow (it '
        f'is {math.expm1(now):.0%} above it): raise {LR}; if that does not '
        f'suffice, raise {WEIGHT} or lengthen {DECAY}.'
    ]


def _jumps(history: History) -> List[str]:
    """Single steps change the resource much: three of them are no chance."""
    third = sorted(_steps(history.current))[-3]
    scheduled = statistics.median(_steps(history.target))
    if third < max(_JUMP, 3 * scheduled):
        return []
    return [
        f'Single steps change the {history.kind} by {math.expm1(third):.0%} '
        f'and more: the pruning ratios jump. Lower {LR}.'
    ]


def _steps(values: Sequence[float]) -> List[float]:
    """Relative changes from one iteration to the next."""
    logs = [math.log(max(value, 1e-12)) for value in values]
    return [abs(b - a) for a, b in zip(logs, logs[1:])]


def _beyond(
    kind: str, distance: Sequence[float], late: int, nearest: float
) -> List[str]:
    """Far below the target, where the resource loss is 0."""
    now = statistics.fmean(distance[late:])
    if nearest > -_BEYOND:
        return []
    return [
        f'The structure is {-math.expm1(now):.0%} below its {kind} target, '
        'where the resource loss is 0 and nothing but the task loss moves '
        f'it: lower {LR}, or {WEIGHT} if it is above 1.'
    ]
