"""Settings of a search, checked as soon as they are known."""

from typing import Any, Dict, Mapping, Union

from dms_mmrazor.core import scheduled_target
from dms_mmrazor.core.durations import check_durations
from dms_mmrazor.errors import DMSError
from dms_mmrazor.search.targets import Target


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
        is_number = isinstance(weight, (int, float))
        if not (is_number and 0 < weight < float('inf')):
            raise DMSError(
                f'{owner}: `loss_weight` of {kind} must be positive '
                f'and finite, got {weight!r}.'
            )
    return weights


def check_schedule(
    warmup: Any, decay: Any, schedule: Any, owner: str = 'ResourceHook'
) -> None:
    """Raise DMSError for phases or a shape that cannot be meant."""
    try:
        check_durations(warmup, decay)
        scheduled_target(0.0, 1.0, 1.0, schedule)
    except ValueError as error:
        raise DMSError(f'{owner}: {error}') from None


def check_counts(owner: str = 'ResourceHook', **values: Any) -> None:
    """Raise DMSError unless all settings are whole numbers >= 1."""
    for key, value in values.items():
        is_int = isinstance(value, int) and not isinstance(value, bool)
        if not is_int or value < 1:
            raise DMSError(
                f'{owner}: `{key}` must be an int >= 1, got {value!r}.'
            )
