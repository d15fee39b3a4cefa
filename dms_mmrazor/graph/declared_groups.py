"""Groups of channels that the config declares, where tracing is not enough."""

from difflib import get_close_matches
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.channel_groups import (
    HEADS_KEY,
    ChannelGroup,
    reason_against,
)
from dms_mmrazor.layers import Part, can_narrow, channels_of, named_parts

_KEYS = ('outputs', 'inputs', 'name', 'heads')


class Side(NamedTuple):
    """Channels ``start`` … ``end`` on one side of a part of the model."""

    name: str
    start: int
    end: int
    is_output: bool

    @classmethod
    def of(cls, channel: Mapping[str, Any]) -> 'Side':
        """The side that mmrazor writes as a dict."""
        keys = ('name', 'start', 'end', 'is_output_channel')
        return cls(*(channel[key] for key in keys))

    def overlaps(self, other: 'Side') -> bool:
        """Whether both share channels."""
        same = (self.name, self.is_output) == (other.name, other.is_output)
        return same and self.start < other.end and other.start < self.end


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
        config = _merge(where, sides, touched, parts, declaration)
        name = declaration.get('name') or sides[0].name
        made.append(
            ChannelGroup(name, config, reason_against(config, modules))
        )
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
        close = get_close_matches(name, known, n=3, cutoff=0.0)
        raise DMSError(
            f'{where} names {name!r}, which is no conv, linear or norm layer '
            f'and no parameter. Did you mean one of {close}?'
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


def _sides(group: ChannelGroup) -> List[Side]:
    """Sides of a traced group that belong to the model itself."""
    channels = group.config['channels']
    every = [*channels['output_related'], *channels['input_related']]
    return [Side.of(c) for c in every if isinstance(c['name'], str)]


def _touches(group: ChannelGroup, sides: Sequence[Side], where: str) -> bool:
    """Whether a traced group becomes part of a declared one.

    One that is not searched stays as it is where only a part of its
    channels is declared.
    """
    pairs = [
        (side, other)
        for side in sides
        for other in _sides(group)
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
) -> Dict[str, Any]:
    """Config of one group of all sides."""
    traced = [side for group in touched for side in _sides(group)]
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
    return dict(
        init_args=dict(num_channels=size),
        **({HEADS_KEY: True} if heads else {}),
        channels=dict(
            output_related=[_as_dict(s) for s in every if s.is_output],
            input_related=[_as_dict(s) for s in every if not s.is_output],
        ),
    )


def _read_heads(declaration: Mapping[str, Any], where: str) -> int:
    """Declared number of heads; 0 for channels."""
    heads = declaration.get('heads', 0)
    if type(heads) is not int or heads < 0:
        raise DMSError(
            f'{where}: `heads` must be the number of heads that the channels '
            f'belong to, got {heads!r}.'
        )
    return heads


def _as_dict(side: Side) -> Dict[str, Any]:
    """As mmrazor writes a side."""
    keys: Tuple[str, ...] = ('name', 'start', 'end', 'is_output_channel')
    return dict(zip(keys, side))
