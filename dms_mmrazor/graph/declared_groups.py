"""Groups of channels that are declared, where tracing is not enough.

The config declares them (`mutator.groups`), or an adapter of the model's
library does: what a tracer does not get through (keyword arguments, rotary
embeddings, caches) it knows from the names of the layers. That masked and
exported models agree is proven as for any other model.
"""

from typing import Any, Dict, List, Mapping, Optional, Sequence

from torch import nn

from dms_mmrazor.errors import DMSError, did_you_mean
from dms_mmrazor.graph.channel_groups import (
    ChannelGroup,
    Side,
    reason_against,
)
from dms_mmrazor.graph.stage_finder import ResidualStage
from dms_mmrazor.layers import Part, can_narrow, channels_of, named_parts
from dms_mmrazor.layers.by_type import load_plugin

_KEYS = ('outputs', 'inputs', 'name', 'heads')


def declare_groups(
    groups: Sequence[ChannelGroup],
    declared: Sequence[Mapping[str, Any]],
    model: nn.Module,
) -> List[ChannelGroup]:
    """Merge what the config ties into what the tracer found.

    A declared group takes in every traced one that it touches: the norm
    behind a named convolution, say. Whatever the tracer had against these
    is dropped; that masked and exported models still agree is proven before
    the search, as always.

    Args:
        groups (Sequence[ChannelGroup]): Traced groups.
        declared (Sequence[dict]): As ``mutator.groups``: `outputs` and
            `inputs` are lists of layers (norms, bare parameters) or of
            ranges 'layer start:end' of their channels; `name` is optional.
            Sides with a multiple of the channels repeat each of them.
            `heads` says that the elements are so many heads, each with as
            many channels of a side as their number goes into it.
        model (nn.Module): The plain model.

    Returns:
        list[ChannelGroup]: The declared groups, then the untouched ones.

    Raises:
        DMSError: If a declaration is malformed, names nothing, cuts through
            a group, or its numbers of channels do not fit.
    """
    parts = named_parts(model)
    modules = dict(model.named_modules())
    left, made = list(groups), []
    for index, declaration in enumerate(declared):
        where = f'`mutator.groups[{index}]`'
        sides = _read(declaration, where, parts)
        touched = [g for g in left if _touches(g, sides, where)]
        left = [g for g in left if not any(g is other for other in touched)]
        group = _merge(where, sides, touched, parts, declaration)
        reason = reason_against(group, modules)
        made.append(group._replace(reason=reason))
    return [*made, *left]


def _read(
    declaration: Mapping[str, Any], where: str, parts: Dict[str, Part]
) -> List[Side]:
    """The sides that a declaration names."""
    if not isinstance(declaration, Mapping) or set(declaration) - set(_KEYS):
        raise DMSError(
            f'{where} must be a dict of `outputs`, `inputs` and maybe '
            f'`name`, got {declaration!r}.'
        )
    sides = []
    for key in ('outputs', 'inputs'):
        texts = declaration.get(key)
        if not isinstance(texts, (list, tuple)) or not texts:
            raise DMSError(
                f'{where}: `{key}` must be a list of layers, got {texts!r}.'
            )
        for text in texts:
            sides.append(_read_side(text, f'{where}.{key}', parts))
    return sides


def _read_side(text: Any, where: str, parts: Dict[str, Part]) -> Side:
    """Read 'layer' or 'layer start:end'."""
    name, _, channels = str(text).partition(' ')
    if not can_narrow(parts.get(name)):
        known = [n for n, part in parts.items() if can_narrow(part)]
        raise DMSError(
            f'{where} names {name!r}, which is no conv, linear or norm layer '
            f'and no parameter.{did_you_mean(name, known)}'
        )
    is_output = where.endswith('outputs')
    total = channels_of(parts[name], not is_output)
    start, end = 0, total
    if channels:
        first, colon, last = channels.partition(':')
        if not (colon and first.strip().isdigit() and last.strip().isdigit()):
            raise DMSError(f"{where}: {text!r} is not 'layer start:end'.")
        start, end = int(first), int(last)
    if not 0 <= start < end <= total:
        raise DMSError(
            f'{where}: {name} has {total} channels, not {channels}.'
        )
    return Side(name, start, end, is_output)


def _touches(group: ChannelGroup, sides: Sequence[Side], where: str) -> bool:
    """Whether a traced group becomes part of a declared one.

    One that is not searched stays as it is where only a part of its
    channels is declared.
    """
    pairs = [
        (side, other)
        for side in sides
        for other in group.sides
        if side.overlaps(other)
    ]
    for side, other in pairs:
        if side[1:3] != other[1:3]:
            # It is not searched anyway, so nothing is torn apart.
            if group.reason:
                return False
            raise DMSError(
                f'{where}: {side.name} {side.start}:{side.end} cuts through '
                f'the channels {other.start}:{other.end} of unit '
                f'{group.name}.'
            )
    return bool(pairs)


def _merge(
    where: str,
    sides: Sequence[Side],
    touched: Sequence[ChannelGroup],
    parts: Dict[str, Part],
    declaration: Mapping[str, Any],
) -> ChannelGroup:
    """One group of all sides."""
    traced = [side for group in touched for side in group.sides]
    inside = [side for side in traced if side.name in parts]
    every = list(dict.fromkeys([*sides, *inside]))
    heads = _read_heads(declaration, where)
    # A side with more channels (a flattened map, heads of many dims) repeats
    # each of them.
    size = heads or min(side.end - side.start for side in every)
    for side in every:
        if (side.end - side.start) % size:
            raise DMSError(
                f'{where} ties {side.end - side.start} channels of '
                f'{side.name} to {size} of others: one number must divide '
                'the other.'
            )
    name = declaration.get('name') or sides[0].name
    every.sort(key=lambda side: not side.is_output)
    return ChannelGroup(name, size, tuple(every), heads=bool(heads))


def _read_heads(declaration: Mapping[str, Any], where: str) -> int:
    """Declared number of heads; 0 for channels."""
    heads = declaration.get('heads', 0)
    if type(heads) is not int or heads < 0:
        raise DMSError(
            f'{where}: `heads` must be the number of heads that the channels '
            f'belong to, got {heads!r}.'
        )
    return heads


class ModelAdapter:
    """What a library's adapter tells of one model."""

    def declarations(self) -> List[Dict[str, Any]]:
        """Groups of channels, as ``mutator.groups``."""
        raise NotImplementedError

    def held(self) -> List[ChannelGroup]:
        """Groups that are not searched, with their reasons."""
        return []

    def stages(self) -> List[ResidualStage]:
        """Stages of removable blocks."""
        return []


def find_adapter(
    model: nn.Module, settings: Optional[Mapping[str, Any]] = None
) -> Optional[ModelAdapter]:
    """The adapter of a model, if its library has one that knows it.

    Args:
        model (nn.Module): A plain model.
        settings (Mapping, optional): What the user wants of the adapter:
            `mutator.parse_cfg.decoder`. Defaults to None.

    Raises:
        DMSError: If the settings are unknown.
    """
    for module in model.modules():
        for kind in type(module).__mro__:
            plugin = load_plugin(kind.__module__.partition('.')[0])
            make = getattr(plugin, 'make_adapter', None)
            if make is not None:
                return make(model, settings or {})
    return None
