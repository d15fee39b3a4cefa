"""What a state of a search remembers of its settings, to notice changes."""

import logging
from typing import Any, Dict, Iterator, Mapping

from mmengine.logging import print_log

from dms_mmrazor.files import plain_value
from dms_mmrazor.search.milestones import Course
from dms_mmrazor.search.targets import Target


def loop_settings(
    course: Course,
    wanted: Mapping[str, Target],
    total_steps: int,
    hold_depth: bool,
) -> Dict[str, Any]:
    """What leads a search in a loop of one's own, as plain data.

    Args:
        course (Course): How the target falls.
        wanted (Mapping[str, Target]): Targets as the user wrote them.
        total_steps (int): Optimizer steps of the whole search.
        hold_depth (bool): Whether depths are held while refining.
    """
    stops = {
        name: {kind: plain_value(value) for kind, value in row.items()}
        for name, row in course.milestones.items()
    }
    family = {'milestones': stops, 'settle': course.settle} if stops else {}
    return {
        **{f'target.{k}': plain_value(value) for k, value in wanted.items()},
        'total_steps': total_steps,
        'warmup': course.warmup,
        'decay': course.decay,
        'schedule': course.schedule,
        'hold_depth': hold_depth,
        **family,
    }


def changed_settings(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[str]:
    """A line per setting that differs: 'key: old → new'."""
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            yield f'{key}: {old.get(key)!r} → {new.get(key)!r}'


def warn_of_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Log a warning for every setting that a resumed search changes.

    Args:
        old (Mapping[str, Any]): Of :func:`loop_settings`, from a state.
        new (Mapping[str, Any]): Of the search that goes on.
    """
    for line in changed_settings(old, new):
        print_log(
            f'Search: the state is of a search with other settings; {line}.',
            logger='current',
            level=logging.WARNING,
        )
