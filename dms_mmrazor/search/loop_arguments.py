"""Arguments of a search in a loop of one's own, checked before they act."""

import os
from typing import Any, Dict, Mapping, Optional, Sequence

from dms_mmrazor.errors import DMSError, did_you_mean
from dms_mmrazor.graph import DMSChannelAnalyzer
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.type_names import settings_of, type_name


def check_mutator(settings: Any) -> Any:
    """Arguments of a mutator, without a type that says what it is anyway.

    Args:
        settings (Any): ``mutator`` of :class:`Search`.

    Raises:
        DMSError: If one is unknown, of another mutator, or given twice.
    """
    if not isinstance(settings, Mapping):
        return settings  # refused where they are read
    settings = dict(settings)
    kind = type_name(settings)
    if kind not in ('', 'DMSMutator'):
        raise DMSError(
            f'Search: `mutator` must be arguments of DMSMutator, got {kind}.'
        )
    for key in ('type', '_scope_'):
        settings.pop(key, None)
    _check_names('mutator', settings, DMSMutator)
    parse_cfg = settings.get('parse_cfg')
    if isinstance(parse_cfg, Mapping):
        _check_parse_cfg(parse_cfg)
    return settings


def _check_parse_cfg(parse_cfg: Mapping[str, Any]) -> None:
    if 'demo_input' in parse_cfg:
        raise DMSError(
            'Search: `mutator.parse_cfg.demo_input`='
            f'{parse_cfg["demo_input"]!r} is what `example_inputs` says: '
            'remove it.'
        )
    given = {key: value for key, value in parse_cfg.items() if key != 'type'}
    _check_names('mutator.parse_cfg', given, DMSChannelAnalyzer)


def _check_names(key: str, given: Mapping[str, Any], known: type) -> None:
    """Raise DMSError unless a class takes all arguments of a name."""
    names = settings_of(known)
    for name in given:
        if name not in names:
            raise DMSError(
                f'Search: `{key}` has no setting {name!r}; it takes '
                f'{", ".join(names)}.{did_you_mean(name, names)}'
            )


def check_record(record: Any) -> Optional[str]:
    """The folder of a record, None for none.

    Raises:
        DMSError: If it is no folder.
    """
    if record is None:
        return None
    if not isinstance(record, (str, os.PathLike)) or not os.fspath(record):
        raise DMSError(
            'Search: `record` must be a folder, such as '
            f"'work_dirs/search', or None; got {record!r}."
        )
    if os.path.isfile(record):
        raise DMSError(
            f'Search: `record` must be a folder; {os.fspath(record)!r} is a '
            'file.'
        )
    return os.fspath(record)


def check_path(path: Any) -> str:
    """A path that a YAML file can be written to, before work is done.

    Args:
        path (str | Path): ``path`` of :meth:`Search.export`.

    Raises:
        DMSError: If it is no path, a folder, or called as another file.
    """
    wanted = (
        'Search.export: `path` must be the path of a YAML file, such as '
        "'subnet.yaml'"
    )
    if not isinstance(path, (str, os.PathLike)):
        raise DMSError(f'{wanted}, got {path!r}.')
    path = os.fspath(path)
    if os.path.isdir(path):
        raise DMSError(f'{wanted}; {path!r} is a folder.')
    if not path.endswith(('.yaml', '.yml')):
        raise DMSError(
            f'{wanted}, got {path!r}: the structure alone is written '
            'there; weights are `torch.save(subnet.model.state_dict(), …)`.'
        )
    return path


def check_metrics(owner: str, metrics: Any) -> Dict[str, Any]:
    """Scores by name.

    Args:
        owner (str): Whose ``metrics`` they are, for messages.
        metrics (Any): What the user gave; None is no score.

    Raises:
        DMSError: If they are no numbers by name.
    """
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise DMSError(
            f"{owner}: `metrics` must be a dict, such as {{'accuracy': "
            f'0.75}}; got {metrics!r}.'
        )
    for name, value in metrics.items():
        is_number = isinstance(value, (int, float))
        if not is_number and getattr(value, 'ndim', 1) != 0:
            raise DMSError(
                f'{owner}: `metrics[{name!r}]` must be a number, got '
                f'{value!r}.'
            )
    return dict(metrics)


def check_scaler(scaler: Any, optimizer: Any) -> None:
    """Raise DMSError unless these are a loss scaler and an optimizer."""
    if not (hasattr(scaler, 'scale') and hasattr(scaler, 'update')):
        raise DMSError(
            'Search.use_scaler: `scaler` must be a GradScaler, got '
            f'{type(scaler).__name__}; without one do not call it.'
        )
    if not hasattr(optimizer, 'param_groups'):
        raise DMSError(
            'Search.use_scaler: `optimizer` must be the optimizer that the '
            f'scaler steps, got {type(optimizer).__name__}.'
        )


def check_state(
    state: Any, needed: Sequence[str], units: Sequence[str]
) -> None:
    """Raise unless a state is of a search of the same units.

    Args:
        state (Any): What the user loads.
        needed (Sequence[str]): Keys that a state has.
        units (Sequence[str]): Of this search, each with its size.

    Raises:
        DMSError: It says what was given, or the first unit that differs.
    """
    has = state if isinstance(state, Mapping) else {}
    missing = [key for key in needed if key not in has]
    if missing:
        raise DMSError(
            'Search: `state` must be what `search.state_dict()` gave, and '
            f'has no {missing[0]!r}; got {type(state).__name__}. Weights of '
            'the model are loaded by `search.model.load_state_dict`.'
        )
    old = list(state['units'])
    if old == list(units):
        return
    differ = next((p for p in zip(old, units) if p[0] != p[1]), None)
    text = f'{len(old)} of them in the state, {len(units)} here'
    if differ is not None:
        text = f'{differ[0]!r} in the state, {differ[1]!r} here'
    raise DMSError(
        f'Search: the state is of a search of other units or stages ({text});'
        ' make the search of the same model with the same arguments.'
    )
