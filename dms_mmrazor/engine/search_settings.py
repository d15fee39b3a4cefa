"""What a checkpoint remembers of its search, to notice changes."""

from typing import Any, Dict, Mapping

from mmengine.runner import Runner

from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import plain_value
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.search.loop_settings import changed_settings

KEY = 'dms_search'
"""Where the settings are in a checkpoint."""


def space_of(algorithm: DMSAlgorithm) -> Dict[str, Any]:
    """Units and stages with their sizes, steps and limits, in order."""
    mutator = algorithm.mutator
    names = [unit.name for unit in mutator.searched_units]
    operators = mutator.topk.operators
    return {
        name: [operator.size, operator.step, *operator[-2:]]
        for name, operator in zip(names, operators)
    }


def limits_of(space: Mapping[str, Any]) -> Dict[str, Any]:
    """Fewest and most kept elements of each unit."""
    return {f'limits of {name}': list(row[2:]) for name, row in space.items()}


def settings_of(
    hook: Any, runner: Runner, algorithm: DMSAlgorithm
) -> Dict[str, Any]:
    """What leads a search, as plain data.

    Args:
        hook (ResourceHook): Of the search.
        runner (Runner): Trains it.
        algorithm (DMSAlgorithm): The search.
    """
    masks, full = algorithm.mutator.masks, algorithm.mutator.table.full
    step = algorithm.structure.step
    lr = None if step.follows_length else step.lr
    wanted = {kind: plain_value(v) for kind, v in hook.wanted.items()}
    course = hook.course
    family = {}
    if course.milestones:
        stops = {name: dict(row) for name, row in course.milestones.items()}
        family = {'milestones': stops, 'settle': course.settle}
    return {
        **family,
        **{f'target.{kind}': value for kind, value in wanted.items()},
        **{f'loss_weight.{kind}': v for kind, v in hook.weights.items()},
        **{f'supernet.{kind}': value for kind, value in full.items()},
        'warmup': course.warmup,
        'decay': course.decay,
        'schedule': course.schedule,
        'hold_depth': hook.hold_depth,
        'divisor': hook.divisor,
        'max_iters': runner.max_iters,
        'method': masks.method,
        'importance': [masks.metric, masks.decay],
        'structure_only': algorithm.structure_only,
        'structure_step': [step.rule, lr, step.average],
        'signal': algorithm.structure.signal,
    }


def check_space(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise unless the importances of a checkpoint mean the same units.

    Raises:
        DMSError: It names the first unit that differs.
    """
    for name in [*old, *new]:
        sizes = [list(space.get(name, []))[:2] for space in (old, new)]
        if sizes[0] != sizes[1]:
            texts = [_describe(size) for size in sizes]
            raise DMSError(
                f'the search cannot be resumed: unit {name!r} had '
                f'{texts[0]} in the checkpoint and has {texts[1]} in the '
                'config.'
            )
    if list(old) != list(new):
        raise DMSError(
            'the search cannot be resumed: its units have another order.'
        )


def _describe(size: Any) -> str:
    return f'{size[0]} elements of step {size[1]}' if size else 'no elements'


def report_changes(
    old: Mapping[str, Any], hook: Any, runner: Runner, algorithm: DMSAlgorithm
) -> None:
    """Warn of every setting that a resumed search changes.

    Args:
        old (Mapping[str, Any]): What the checkpoint has under :data:`KEY`.
        hook (ResourceHook): Of the search.
        runner (Runner): Resumes it.
        algorithm (DMSAlgorithm): The search.

    Raises:
        DMSError: If the importances belong to other units, or to another
            way of masks.
    """
    space = space_of(algorithm)
    check_space(old['space'], space)
    before = {
        'method': 'dms',
        'signal': 'gradient',
        **old['settings'],
        **limits_of(old['space']),
    }
    now = {**settings_of(hook, runner, algorithm), **limits_of(space)}
    if before['method'] != now['method']:
        raise DMSError(
            'the search cannot be resumed: the checkpoint is of '
            f'mutator.method={before["method"]!r}, the config has '
            f'{now["method"]!r}.'
        )
    for line in changed_settings(before, now):
        runner.logger.warning(f'The resumed search changes {line}')
