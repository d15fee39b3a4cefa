"""Make units of what the tracer found, as the config wants them."""

import re
from typing import (
    Any,
    Collection,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Type,
)

from mmrazor.models.mutables.mutable_channel.units.channel_unit import Channel
from torch import nn

from dms_mmrazor.errors import DMSError, did_you_mean
from dms_mmrazor.graph import ChannelGroup, ResidualStage
from dms_mmrazor.layers import is_weighted
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit
from dms_mmrazor.registry import MODELS
from dms_mmrazor.type_names import type_name

EXCLUDED = 'excluded by `mutator.exclude`'


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
    # All names at once, before any is used: a typo must not search what
    # somebody meant to leave out.
    check_names('mutator.exclude', exclude, known)
    check_names('channel_unit_cfg.units', list(width.units), group_names)
    check_names('depth_unit_cfg.units', list(depth.units), stage_names)
    excluded = {
        name
        for pattern in exclude
        for name in selected_units(pattern, groups, stages)
    }
    groups = exclude_groups(groups, excluded, width.unit_class is not None)
    units = make_channel_units(model, groups, *width)
    found, stage_reasons = make_depth_units(stages, *depth, excluded)
    if not units and not found:
        found_reasons = [group.reason for group in groups]
        reasons = sorted({*found_reasons, *stage_reasons.values()})
        raise DMSError(
            f'no searchable unit in {type(model).__name__}: '
            f'{"; ".join(reasons) or _reason_without_groups(model)}.'
        )
    return SearchSpace(units, found, groups, stage_reasons)


def _reason_without_groups(model: nn.Module) -> str:
    """Why there are no channels to search where none were found at all."""
    if is_weighted(model):
        return 'it is a single layer, between its input and its output'
    names = [name for name, m in model.named_modules() if is_weighted(m)]
    if not names:
        return 'it has no conv or linear layer'
    shown = ', '.join(f'`{name}`' for name in names[:3])
    return (
        f'the tracer reaches none of its {len(names)} conv and linear layers '
        f'({shown}{", …" if len(names) > 3 else ""}); tie some by '
        '`mutator.groups`'
    )


def read_width_cfg(cfg: Optional[Mapping[str, Any]]) -> UnitConfig:
    """Class and arguments of the width units.

    Raises:
        DMSError: If the type is not a registered width unit of ours: those
            of other methods have no masks that a search moves.
    """
    return _read_unit_cfg('channel_unit_cfg', cfg, DMSChannelUnit)


def read_depth_cfg(cfg: Optional[Mapping[str, Any]]) -> UnitConfig:
    """Class and arguments of the depth units.

    Raises:
        DMSError: If the type is not a registered depth unit.
    """
    return _read_unit_cfg('depth_unit_cfg', cfg, DMSDepthUnit)


def _read_unit_cfg(
    key: str, cfg: Optional[Mapping[str, Any]], base: Type[nn.Module]
) -> UnitConfig:
    name, default_args, units = split_unit_cfg(key, cfg)
    unit_class = MODELS.module_dict.get(name or base.__name__)
    if not (isinstance(unit_class, type) and issubclass(unit_class, base)):
        raise DMSError(f'`{key}.type` must be {base.__name__}, got {name!r}.')
    return UnitConfig(unit_class, default_args, units)


def matches(name: str, pattern: str) -> bool:
    """Whether a name is the pattern or matches it with ``*`` and ``?``.

    Brackets are part of names: 'conv[0:8]' is a part of a layer's channels.
    """
    wild = {'*': '.*', '?': '.'}
    regex = ''.join(wild.get(c) or re.escape(c) for c in pattern)
    return name == pattern or bool(re.fullmatch(regex, name))


def selected_units(
    pattern: str,
    groups: Sequence[ChannelGroup],
    stages: Sequence[ResidualStage],
) -> List[str]:
    """Units and stages that a name or pattern of the config stands for.

    The name of a unit stands for it alone, although a layer is called so,
    too. That of another layer stands for the units that it gives, or, if
    none of these is searched, for those that it reads.

    Args:
        pattern (str): A name, ``*`` and ``?`` allowed.
        groups (Sequence[ChannelGroup]): All groups.
        stages (Sequence[ResidualStage]): All stages.
    """
    searched = [group for group in groups if not group.reason]
    units = dict.fromkeys(group.name for group in searched)
    found = [name for name in units if matches(name, pattern)]
    sides: Dict[bool, Dict[str, List[str]]] = {True: {}, False: {}}
    for group in searched:
        for layer, is_output in group.layers:
            sides[is_output].setdefault(layer, []).append(group.name)
    for layer in {**sides[True], **sides[False]}:
        if layer not in units and matches(layer, pattern):
            found += sides[True].get(layer) or sides[False][layer]
    for stage in stages:
        names = (stage.name, *(block.name for block in stage.blocks))
        if any(matches(name, pattern) for name in names):
            found.append(stage.name)
    return found


def exclude_groups(
    groups: Sequence[ChannelGroup],
    excluded: Collection[str],
    width: bool,
) -> List[ChannelGroup]:
    """Give the groups that the config does not want a reason.

    Args:
        groups (Sequence[ChannelGroup]): What the tracer found.
        excluded (Collection[str]): Names of units.
        width (bool): Whether widths are searched at all.
    """
    result = []
    for group in groups:
        reason = group.reason
        if not reason and not width:
            reason = 'widths are not searched (`channel_unit_cfg=None`)'
        if not reason and group.name in excluded:
            reason = EXCLUDED
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
        # What stands for the model's ends is no name that anybody knows.
        names = [name for name in known if not name.endswith('_placeholder')]
        raise DMSError(
            f'`{key}` names {pattern!r}, which matches no unit, stage or '
            f'layer.{did_you_mean(pattern, names)}'
        )


def merge_args(
    name: str,
    default_args: Mapping[str, Any],
    units_cfg: Mapping[str, Mapping[str, Any]],
) -> Dict[str, Any]:
    """Arguments of one unit: the defaults, then each matching entry."""
    args = dict(default_args)
    # Of several that match the last one wins, as a reader expects.
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
    # mmrazor's own ``init_from_cfg`` asks all names anew for every channel.
    units, modules = [], dict(model.named_modules())
    for group in groups:
        if group.reason:
            continue
        args = merge_args(group.name, default_args, units_cfg)
        args['num_channels'] = group.size
        try:
            unit = unit_class(**args)
        except DMSError as error:
            raise DMSError(f'unit {group.name}: {error}') from None
        except TypeError as error:
            raise _wrong_args('channel', group.name, args, error) from error
        for name, start, end, is_output in group.sides:
            module, place = modules.get(name), (start, end)
            channel = Channel(name, module, place, is_output_channel=is_output)
            add = (
                unit.add_output_related
                if is_output
                else unit.add_input_related
            )
            add(channel)
        unit.name = group.name
        unit.declared_heads = group.heads
        units.append(unit)
    return units


def make_depth_units(
    stages: Sequence[ResidualStage],
    unit_class: Type[DMSDepthUnit],
    default_args: Mapping[str, Any],
    units_cfg: Mapping[str, Mapping[str, Any]],
    excluded: Collection[str],
) -> Tuple[List[DMSDepthUnit], Dict[str, str]]:
    """A unit for every stage that can lose a block.

    Returns:
        tuple: The units, and stage → reason for the others.
    """
    units, reasons = [], {}
    for stage in stages:
        args = merge_args(stage.name, default_args, units_cfg)
        if stage.name in excluded:
            reasons[stage.name] = EXCLUDED
            continue
        if stage.reason:
            reasons[stage.name] = stage.reason
            continue
        _check_blocks(stage.name, args)
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


def _check_blocks(stage: str, args: Mapping[str, Any]) -> None:
    """Raise DMSError unless the limits of a stage are whole numbers."""
    for key in ('min_blocks', 'max_blocks'):
        value = args.get(key)
        if value is not None and type(value) is not int:
            raise DMSError(
                f'`depth_unit_cfg`: `{key}` of stage {stage} must be an int '
                f'>= 0, got {value!r}.'
            )


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
        DMSError: If it is no dict, or has other keys.
    """
    if not isinstance(cfg, (Mapping, type(None))):
        raise DMSError(
            f'`{key}` must be a dict such as dict(default_args=dict(…)), or '
            f'None, which searches none; got {cfg!r}.'
        )
    cfg = dict(cfg or {})
    unit_type = type_name({'type': cfg.pop('type', '')})
    default_args = cfg.pop('default_args', None) or {}
    units_cfg = cfg.pop('units', None) or {}
    if cfg:
        raise DMSError(
            f'`{key}` has unknown keys {sorted(cfg)}; it takes `type`, '
            '`default_args` and `units`.'
        )
    _check_args(f'{key}.default_args', default_args)
    _check_args(f'{key}.units', units_cfg)
    for name, entry in units_cfg.items():
        if not isinstance(name, str):
            raise DMSError(
                f'`{key}.units` must have names of units, as texts, got '
                f'{name!r}: write {str(name)!r}.'
            )
        _check_entry(f'{key}.units[{name!r}]', entry)
    return unit_type, dict(default_args), dict(units_cfg)


def _check_args(key: str, args: Any) -> None:
    """Raise DMSError unless these are settings by name."""
    if not isinstance(args, Mapping):
        raise DMSError(f'`{key}` must be a dict, got {args!r}.')


def _check_entry(key: str, entry: Any) -> None:
    """Raise DMSError unless a unit's entry has its arguments in place."""
    _check_args(key, entry)
    outside = {name: entry[name] for name in entry if name != 'init_args'}
    if outside:
        args = {**outside, **(entry.get('init_args') or {})}
        text = ', '.join(f'{name}={value!r}' for name, value in args.items())
        raise DMSError(
            f'`{key}` has {sorted(outside)[0]!r} beside `init_args`, where '
            f'it is not read: write `dict(init_args=dict({text}))`.'
        )
    _check_args(f'{key}.init_args', entry.get('init_args', {}))
