"""More channels in the layers of a plain model."""

import logging
from typing import Any, Dict, List, Mapping, Sequence, Tuple, Union

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import ChannelGroup, DMSChannelAnalyzer
from dms_mmrazor.graph.channel_groups import (
    SINGLE,
    TIED_TO_INPUT,
    TIED_TO_OUTPUT,
)
from dms_mmrazor.layers import (
    AttentionDim,
    ChannelHolder,
    Part,
    channels_of,
    is_norm,
    named_parts,
    narrow_layer,
)
from dms_mmrazor.layers.block import refresh_attributes
from dms_mmrazor.layers.conv import is_conv, is_transposed
from dms_mmrazor.supernet.search_space import matches
from dms_mmrazor.supernet.structure_writer import narrows

Sides = Dict[Tuple[str, bool], int]


def widen(
    model: nn.Module,
    factors: Union[float, Mapping[str, float]],
    input_size: Tuple[int, ...],
) -> None:
    """Give groups of coupled layers more channels, with fresh weights.

    A width that is a multiple of 8 stays one. Grouped convolutions keep
    their number of groups, depthwise ones stay depthwise. Layers that a
    factor is meant for and that keep their width are logged with the reason;
    the model's own inputs and outputs are not meant.

    Args:
        model (nn.Module): A plain model; it is changed in place.
        factors (float | Mapping[str, float]): Factor of all widths, or name
            or pattern of width units → factor.
        input_size (tuple): (B, C, H, W) of a demo input.

    Raises:
        DMSError: If a pattern matches no unit or only such as cannot be
            widened, a factor is below 1, or a layer cannot be widened.
    """
    if not isinstance(factors, Mapping):
        factors = {'*': factors}
    analyzer = DMSChannelAnalyzer(demo_input=input_size)
    found = analyzer.analyze_groups(model)
    _report_held([group for group in found if group.reason], found, factors)
    groups = [group for group in found if not group.reason]
    names = [group.name for group in groups]
    wanted = factors_of('widen', factors, names, 'width units')
    parts = named_parts(model)
    added: Sides = {}
    for group in groups:
        if group.name in wanted:
            _add(added, group, wanted[group.name], parts)
    for name in dict.fromkeys(name for name, _ in added):
        outputs, inputs = (
            channels_of(parts[name], side) + added.get((name, side), 0)
            for side in (False, True)
        )
        _resize(name, parts[name], outputs, inputs)
    refresh_attributes(model)


def _report_held(
    held: Sequence[ChannelGroup],
    groups: Sequence[ChannelGroup],
    factors: Mapping[str, float],
) -> None:
    """Log what a factor is meant for and cannot widen.

    Args:
        held (Sequence[ChannelGroup]): Groups with a reason against them.
        groups (Sequence[ChannelGroup]): All groups.
        factors (Mapping[str, float]): Pattern → factor.

    Raises:
        DMSError: If a pattern is meant for such groups alone.
    """
    for pattern in factors:
        meant = [g for g in groups if matches(g.name, pattern)]
        if meant and all(group.reason for group in meant):
            raise DMSError(
                f'`widen` names {pattern!r}, of which nothing can be widened: '
                f'{_reasons(meant)}.'
            )
    natural = (SINGLE, TIED_TO_INPUT, TIED_TO_OUTPUT)
    meant = [
        group
        for group in held
        if group.reason not in natural
        and any(matches(group.name, pattern) for pattern in factors)
    ]
    if meant:
        print_log(
            f'`widen` leaves some widths as they are: {_reasons(meant)}.',
            logger='current',
            level=logging.WARNING,
        )


def _reasons(groups: Sequence[ChannelGroup]) -> str:
    """Names of groups with what speaks against each."""
    return '; '.join(f'{group.name} ({group.reason})' for group in groups)


def _add(
    added: Sides,
    group: ChannelGroup,
    factor: float,
    parts: Dict[str, Part],
) -> None:
    """Note how many channels the sides of a group's layers get."""
    part = parts.get(group.name)
    if isinstance(part, AttentionDim):
        raise DMSError(
            f'`widen`: {group.name} cannot be widened; set heads and width '
            'of an attention in the config of the architecture (`arch`).'
        )
    more = _widened(group.size, factor) - group.size
    for name, start, end, is_output in group.sides:
        if narrows(parts.get(name), is_output):
            key = (name, not is_output)
            times = (end - start) // group.size
            added[key] = added.get(key, 0) + times * more


def _widened(size: int, factor: float) -> int:
    """A multiple of 8 stays one."""
    step = 1 if size % 8 else 8
    return max(size, int(size * factor / step + 0.5) * step)


def _resize(name: str, part: Part, outputs: int, inputs: int) -> None:
    """Give a part more channels and fresh weights, in place."""
    indices = _repeated(outputs, channels_of(part, False))
    if isinstance(part, ChannelHolder) or is_norm(part):
        narrow_layer(part, indices, None)
    elif is_conv(part) and part.groups > 1:
        _resize_grouped(name, part, outputs, inputs)
    else:
        others = _repeated(inputs, channels_of(part, True))
        narrow_layer(part, indices, others)
    if isinstance(part, nn.Module) and hasattr(part, 'reset_parameters'):
        part.reset_parameters()


def _repeated(new: int, old: int) -> Tensor:
    """Indices of the old channels, repeated; norms and vectors take them."""
    return torch.arange(new) % old


def _resize_grouped(
    name: str, conv: _ConvNd, outputs: int, inputs: int
) -> None:
    groups = inputs if conv.groups == conv.in_channels else conv.groups
    if inputs % groups or outputs % groups:
        raise DMSError(
            f'`widen`: {name} would have {inputs} inputs and {outputs} '
            f'outputs in {groups} groups; choose another factor for it.'
        )
    sides = [outputs, inputs // groups]
    if is_transposed(conv):
        sides = [inputs, outputs // groups]
    shape: List[int] = [*sides, *conv.kernel_size]
    conv.weight = nn.Parameter(conv.weight.new_empty(shape))
    if conv.bias is not None:
        conv.bias = nn.Parameter(conv.bias.new_empty(outputs))
    conv.groups = groups
    conv.in_channels, conv.out_channels = inputs, outputs


def factors_of(
    key: str, wanted: Mapping[str, Any], known: Sequence[str], kind: str
) -> Dict[str, float]:
    """The factor of each part; the last matching pattern counts.

    Args:
        key (str): Config key, for messages.
        wanted (Mapping[str, float]): Name or pattern (``*``, ``?``) →
            factor >= 1.
        known (Sequence[str]): Names of all parts.
        kind (str): What they are, in the plural, for messages.

    Raises:
        DMSError: If a pattern matches nothing or a factor is no number
            >= 1.
    """
    factors: Dict[str, float] = {}
    for pattern, factor in wanted.items():
        _check_factor(f'{key}[{pattern!r}]', factor)
        names = [name for name in known if matches(name, pattern)]
        if not names:
            raise DMSError(
                f'`{key}` names {pattern!r}, which matches none of the '
                f'{kind}: {", ".join(known) or "there are none"}.'
            )
        factors.update(dict.fromkeys(names, factor))
    return factors


def _check_factor(key: str, factor: Any) -> None:
    is_number = isinstance(factor, (int, float)) and factor is not True
    if not is_number or not 1 <= factor < float('inf'):
        raise DMSError(
            f'`{key}` must be a factor >= 1, got {factor!r}: a supernet is '
            'larger than its model.'
        )
