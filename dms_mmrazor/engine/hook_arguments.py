"""Settings of the resource hook, checked as soon as they are known."""

from typing import Any, Dict, Mapping, Union

from dms_mmrazor.apis.config_keywords import unknown_key
from dms_mmrazor.core import scheduled_target
from dms_mmrazor.core.durations import check_durations
from dms_mmrazor.engine.resource_target import Target
from dms_mmrazor.errors import DMSError


def as_weights(
    loss_weight: Union[float, Mapping[str, float]],
    targets: Mapping[str, Target],
) -> Dict[str, float]:
    """Weights λ_r by kind, in the order of the targets.

    Args:
        loss_weight (float | dict): One for all, or by kind; kinds that it
            does not name have 1.
        targets (Mapping[str, Target]): Targets by kind.

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
                f'ResourceHook: `loss_weight` names {kind!r}, which has '
                f'no target; targets: {list(targets)}.'
            )
        is_number = isinstance(weight, (int, float))
        if not (is_number and 0 < weight < float('inf')):
            raise DMSError(
                f'ResourceHook: `loss_weight` of {kind} must be positive '
                f'and finite, got {weight!r}.'
            )
    return weights


def check_schedule(warmup: Any, decay: Any, schedule: Any) -> None:
    """Raise DMSError for phases or a shape that cannot be meant."""
    try:
        check_durations(warmup, decay)
        scheduled_target(0.0, 1.0, 1.0, schedule)
    except ValueError as error:
        raise DMSError(f'ResourceHook: {error}') from None


def check_counts(**values: Any) -> None:
    """Raise DMSError unless all settings are whole numbers >= 1."""
    for key, value in values.items():
        is_int = isinstance(value, int) and not isinstance(value, bool)
        if not is_int or value < 1:
            raise DMSError(
                f'ResourceHook: `{key}` must be an int >= 1, got {value!r}.'
            )


def refuse_unknown(name: str, unknown: Mapping[str, Any]) -> None:
    """Raise DMSError if there are settings that a hook does not have.

    Args:
        name (str): Class of the hook.
        unknown (Mapping[str, Any]): What was given beside its settings.
    """
    if unknown:
        raise unknown_key('custom_hooks', name, next(iter(unknown)))


def needed_target(
    target: Union[Target, Mapping[str, Target], None],
) -> Union[Target, Mapping[str, Target]]:
    """The target of a search, without which there is none.

    Raises:
        DMSError: If there is none.
    """
    if target is None:
        raise DMSError(
            'ResourceHook: `target` is missing: write `target=0.5` for half '
            "of the supernet's MACs, or an absolute such as `target='1G'`."
        )
    return target
