"""Make units of what the tracer found, as the config wants them."""

from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import (
    Any,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Type,
)

from mmrazor.models.mutables.mutable_channel.units.channel_unit import (
    ChannelUnit,
)
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.tracing import ChannelGroup, ResidualStage
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit
from dms_mmrazor.registry import MODELS

_EXCLUDED = 'excluded by `mutator.exclude`'


class UnitConfig(NamedTuple):
    """What a config says of one kind of unit.

    Attributes:
        unit_class (type, optional): Class of the units; None: this kind is
            not searched.
        default_args (dict): Arguments of all units.
        units (dict): Name or pattern → ``dict(init_args=…)``.
    """

    unit_class: Optional[Type[nn.Module]]
    default_args: Dict[str, Any]
    units: Dict[str, Any]


class SearchSpace(NamedTuple):
    """The units of a supernet.

    Attributes:
        units (list[DMSChannelUnit]): Width units.
        stages (list[DMSDepthUnit]): Depth units.
        groups (list[ChannelGroup]): All groups with their final reasons.
        stage_reasons (dict[str, str]): Stage → why it is not searched.
    """

    units: List[DMSChannelUnit]
    stages: List[DMSDepthUnit]
    groups: List[ChannelGroup]
    stage_reasons: Dict[str, str]


def build_search_space(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    stages: Sequence[ResidualStage],
    width: UnitConfig,
    depth: UnitConfig,
    exclude: Sequence[str],
) -> SearchSpace:
    """Make units of what the tracer found.

    Args:
        model (nn.Module): The plain supernet.
        groups (Sequence[ChannelGroup]): Coupled channels.
        stages (Sequence[ResidualStage]): Removable blocks.
        width (UnitConfig): Width units.
        depth (UnitConfig): Depth units.
        exclude (Sequence[str]): Names or patterns that are not searched.

    Raises:
        DMSError: If a name matches nothing, or nothing can be searched.
    """
    layers = [layer for group in groups for layer, _ in group.layers]
    blocks = [block.name for stage in stages for block in stage.blocks]
    group_names = [group.name for group in groups]
    stage_names = [stage.name for stage in stages]
    known = [*group_names, *layers, *stage_names, *blocks]
    check_names('mutator.exclude', exclude, known)
    check_names('channel_unit_cfg.units', list(width.units), group_names)
    check_names('depth_unit_cfg.units', list(depth.units), stage_names)
    groups = exclude_groups(groups, exclude, width.unit_class is not None)
    units = make_channel_units(model, groups, *width)
    found, stage_reasons = make_depth_units(stages, *depth, exclude)
    if not units and not found:
        found_reasons = [group.reason for group in groups]
        reasons = sorted({*found_reasons, *stage_reasons.values()})
        raise DMSError(
            f'no searchable unit in {type(model).__name__}: '
            f'{"; ".join(reasons) or "no conv or linear layer found"}.'
        )
    return SearchSpace(units, found, groups, stage_reasons)


def read_depth_cfg(cfg: Optional[Mapping[str, Any]]) -> UnitConfig:
    """Class and arguments of the depth units.

    Raises:
        DMSError: If the type is not a registered depth unit.
    """
    name, default_args, units = split_unit_cfg('depth_unit_cfg', cfg)
    name = name.rpartition('.')[2] or 'DMSDepthUnit'
    unit_class = MODELS.module_dict.get(name)
    if not (
        isinstance(unit_class, type) and issubclass(unit_class, DMSDepthUnit)
    ):
        raise DMSError(
            f'`depth_unit_cfg.type` must be DMSDepthUnit, got {name!r}.'
        )
    return UnitConfig(unit_class, default_args, units)


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


class _Names:
    """A model of which mmrazor asks all names anew for every channel.

    Args:
        model (nn.Module): The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.named_modules())

    def named_modules(self) -> List[Tuple[str, nn.Module]]:
        """As the model's, looked up once."""
        return self._modules


def make_channel_units(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    unit_class: Type[DMSChannelUnit],
    default_args: Mapping[str, Any],
    units_cfg: Mapping[str, Mapping[str, Any]],
) -> List[DMSChannelUnit]:
    """A unit for every group without a reason against it."""
    units, names = [], _Names(model)
    for group in groups:
        if group.reason:
            continue
        plain = ChannelUnit.init_from_cfg(names, group.config)
        args = merge_args(group.name, default_args, units_cfg)
        try:
            unit = unit_class.init_from_channel_unit(plain, args)
        except DMSError as error:
            raise DMSError(f'unit {group.name}: {error}') from None
        except TypeError as error:
            raise _wrong_args('channel', group.name, args, error) from error
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
            continue
        if stage.reason:
            reasons[stage.name] = stage.reason
            continue
        try:
            if args.get('min_blocks', 1) < len(stage.blocks):
                units.append(unit_class(stage, **args))
                continue
        except TypeError as error:
            raise _wrong_args('depth', stage.name, args, error) from error
        reasons[stage.name] = (
            f'its {len(stage.blocks)} removable block(s) must stay: '
            f'min_blocks={args.get("min_blocks", 1)}'
        )
    return units, reasons


def _wrong_args(
    kind: str, name: str, args: Mapping[str, Any], error: TypeError
) -> DMSError:
    """What to say of arguments that a unit cannot take."""
    return DMSError(
        f'`{kind}_unit_cfg`: unit {name} does not take the arguments '
        f'{dict(args)}: {error}.'
    )


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
