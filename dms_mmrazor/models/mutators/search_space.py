"""Make units of what the tracer found, as the config wants them."""

from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Type

from mmrazor.models.mutables.mutable_channel.units.channel_unit import (
    ChannelUnit,
)
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.tracing import ChannelGroup, ResidualStage
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit

_EXCLUDED = 'excluded by `mutator.exclude`'


def matches(name: str, pattern: str) -> bool:
    """Whether a name is the pattern or matches it with ``*`` and ``?``."""
    return name == pattern or fnmatchcase(name, pattern)


def is_excluded(name: str, patterns: Sequence[str]) -> bool:
    """Whether a unit, stage or layer name matches one of the patterns."""
    return any(matches(name, pattern) for pattern in patterns)


def exclude_groups(
    groups: Sequence[ChannelGroup],
    patterns: Sequence[str],
    width: bool,
) -> List[ChannelGroup]:
    """Give the groups that the config does not want a reason.

    Args:
        groups (Sequence[ChannelGroup]): What the tracer found.
        patterns (Sequence[str]): Names of units or of their layers, ``*``
            allowed.
        width (bool): Whether widths are searched at all.
    """
    result = []
    for group in groups:
        names = [group.name, *(layer for layer, _ in group.layers)]
        reason = group.reason
        if not reason and not width:
            reason = 'widths are not searched (`channel_unit_cfg=None`)'
        if not reason and any(is_excluded(n, patterns) for n in names):
            reason = _EXCLUDED
        result.append(group._replace(reason=reason))
    return result


def check_names(key: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    """Raise if a name or pattern of the config matches nothing.

    Raises:
        DMSError: It names the key and the closest existing names.
    """
    for pattern in wanted:
        if any(matches(name, pattern) for name in known):
            continue
        names = list(dict.fromkeys(known))
        close = get_close_matches(pattern, names, n=3, cutoff=0.0)
        raise DMSError(
            f'`{key}` names {pattern!r}, which matches no unit, stage or '
            f'layer. Did you mean one of {close}?'
        )


def merge_args(
    name: str,
    default_args: Mapping[str, Any],
    units_cfg: Mapping[str, Mapping[str, Any]],
) -> Dict[str, Any]:
    """Arguments of one unit: the defaults, then each matching entry."""
    args = dict(default_args)
    for pattern, cfg in units_cfg.items():
        if matches(name, pattern):
            args.update(cfg.get('init_args', {}))
    return args


def make_channel_units(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    unit_class: Type[DMSChannelUnit],
    default_args: Mapping[str, Any],
    units_cfg: Mapping[str, Mapping[str, Any]],
) -> List[DMSChannelUnit]:
    """A unit for every group without a reason against it."""
    units = []
    for group in groups:
        if group.reason:
            continue
        plain = ChannelUnit.init_from_cfg(model, group.config)
        args = merge_args(group.name, default_args, units_cfg)
        try:
            unit = unit_class.init_from_channel_unit(plain, args)
        except DMSError as error:
            raise DMSError(f'unit {group.name}: {error}') from None
        unit.name = group.name
        units.append(unit)
    return units


def make_depth_units(
    stages: Sequence[ResidualStage],
    unit_class: Type[DMSDepthUnit],
    default_args: Mapping[str, Any],
    units_cfg: Mapping[str, Mapping[str, Any]],
    exclude: Sequence[str],
) -> Tuple[List[DMSDepthUnit], Dict[str, str]]:
    """A unit for every stage that can lose a block.

    Returns:
        tuple: The units, and stage → reason for the others.
    """
    units, reasons = [], {}
    for stage in stages:
        args = merge_args(stage.name, default_args, units_cfg)
        names = (stage.name, *(block.name for block in stage.blocks))
        if any(is_excluded(name, exclude) for name in names):
            reasons[stage.name] = _EXCLUDED
        elif args.get('min_blocks', 1) >= len(stage.blocks):
            reasons[stage.name] = (
                f'its {len(stage.blocks)} removable block(s) must stay: '
                f'min_blocks={args.get("min_blocks", 1)}'
            )
        else:
            units.append(unit_class(stage, **args))
    return units, reasons


def split_unit_cfg(
    key: str, cfg: Optional[Mapping[str, Any]]
) -> Tuple[str, Dict[str, Any], Dict[str, Any]]:
    """Type, default arguments and per-unit entries of a unit config.

    Raises:
        DMSError: If it has other keys.
    """
    cfg = dict(cfg or {})
    unit_type = cfg.pop('type', '')
    default_args = cfg.pop('default_args', None) or {}
    units_cfg = cfg.pop('units', None) or {}
    if cfg:
        raise DMSError(
            f'`{key}` has unknown keys {sorted(cfg)}; it takes `type`, '
            '`default_args` and `units`.'
        )
    return unit_type, dict(default_args), dict(units_cfg)
