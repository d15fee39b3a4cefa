"""What a config may say to the mutator."""

from typing import Any, Dict, Optional, Tuple, Union

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import DMSChannelAnalyzer
from dms_mmrazor.type_names import type_name

Config = Dict[str, Any]


def check_importance(cfg: Optional[Config]) -> Config:
    """The importance's settings; their values are checked where they act.

    Raises:
        DMSError: If it is no dict of ``metric`` and ``decay``.
    """
    cfg = {} if cfg is None else cfg
    if (
        not isinstance(cfg, dict)
        or set(cfg) - {'metric', 'decay'}
        or not isinstance(cfg.get('decay', 0.99), (int, float))
    ):
        raise DMSError(
            '`mutator.importance` is a dict of `metric` and `decay` (a '
            f'number), got {cfg!r}.'
        )
    return dict(cfg)


def check_exclude(exclude: Any) -> Tuple[str, ...]:
    """Names that are not searched; a single text is no list of them.

    Raises:
        DMSError: If they are no list of names.
    """
    if not isinstance(exclude, (list, tuple)) or not all(
        isinstance(name, str) for name in exclude
    ):
        raise DMSError(
            f'`mutator.exclude` must be a list of names, got {exclude!r}.'
        )
    return tuple(exclude)


def build_analyzer(
    cfg: Union[Config, DMSChannelAnalyzer, None],
) -> DMSChannelAnalyzer:
    """The tracer of a config; mmrazor's own name means ours.

    Raises:
        DMSError: If it is of another type.
    """
    if isinstance(cfg, DMSChannelAnalyzer):
        return cfg
    cfg = dict(cfg or {})
    kind = type_name(cfg)
    if kind not in ('', 'ChannelAnalyzer', 'DMSChannelAnalyzer'):
        raise DMSError(
            f'`mutator.parse_cfg.type` must be DMSChannelAnalyzer, got {kind}.'
        )
    for key in ('type', '_scope_'):
        cfg.pop(key, None)
    return DMSChannelAnalyzer(**cfg)
