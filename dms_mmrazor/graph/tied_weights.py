"""Layers that share a parameter are cut alike, or not at all."""

from typing import Any, Dict, List, Sequence, Set, Tuple

from torch import nn

from dms_mmrazor.graph.channel_groups import (
    ChannelGroup,
    all_channels,
    reason_against,
)
from dms_mmrazor.layers import is_layer, is_norm, kind_of
from dms_mmrazor.layers.channel_holder import channel_dim

Owner = Tuple[nn.Module, str]

Side = Tuple[str, bool]
"""A layer, and whether it is its output side."""


def tied_parameters(model: nn.Module) -> List[List[Owner]]:
    """Modules that share a parameter, with its name in each of them.

    Args:
        model (nn.Module): A plain model.
    """
    owners: Dict[int, List[Owner]] = {}
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append((module, key))
    return [found for found in owners.values() if len(found) > 1]


def tie_groups(
    groups: Sequence[ChannelGroup], model: nn.Module
) -> List[ChannelGroup]:
    """Merge groups whose channels meet in a shared parameter.

    Where that is not possible, none of them is searched.

    Args:
        groups (Sequence[ChannelGroup]): What the tracer found.
        model (nn.Module): The plain model.
    """
    result = list(groups)
    modules = dict(model.named_modules())
    for owners in tied_parameters(model):
        for is_output in (True, False):
            sides = _sides(owners, modules, is_output)
            result = _tie(result, sides, modules)
    return result


def _sides(
    owners: Sequence[Owner], modules: Dict[str, nn.Module], is_output: bool
) -> List[Side]:
    """What a shared parameter has in its first or second dimension.

    What is no layer has its channels under the name of the parameter.
    """
    names = {module: name for name, module in modules.items()}
    sides = []
    for module, key in owners:
        name = names[module]
        kind = kind_of(module)
        columns = () if kind is None else kind.weights
        if not is_layer(module):
            part = f'{name}.{key}' if name else key
            tensor = module._parameters[key]
            if tensor.dim() > 1 and is_output != (channel_dim(tensor) == 0):
                # Such are the tokens of an embedding: nobody cuts them.
                part = f'rows of {part}'
            sides.append((part, True))
        elif is_output or key in columns or is_norm(module):
            sides.append((name, is_output or is_norm(module)))
    return sides


def _tie(
    groups: List[ChannelGroup],
    sides: Sequence[Side],
    modules: Dict[str, nn.Module],
) -> List[ChannelGroup]:
    """Merge groups that are at the same place of several sides."""
    places = [_places(groups, side) for side in sides]
    involved = {index for place in places for index in place.values()}
    if not involved:
        return groups
    together = _together(places)
    reasons = [groups[i].reason for i in involved if groups[i].reason]
    sizes = [{_size(groups[i]) for i in indices} for indices in together]
    alike = all(place.keys() == places[0].keys() for place in places)
    if reasons or not alike or any(len(size) > 1 for size in sizes):
        layers = ' and '.join(dict.fromkeys(name for name, _ in sides))
        reason = f'{layers} share a parameter and cannot be cut alike'
        reason = f'{reason}: {reasons[0]}' if reasons else reason
        return [
            group._replace(reason=group.reason or reason * (i in involved))
            for i, group in enumerate(groups)
        ]
    result = list(groups)
    for indices in together:
        first, *others = sorted(indices)
        config = _merged([groups[index] for index in sorted(indices)])
        reason = reason_against(config, modules)
        result[first] = ChannelGroup(groups[first].name, config, reason)
        for other in others:
            result[other] = result[other]._replace(name='')
    return [group for group in result if group.name]


def _places(
    groups: Sequence[ChannelGroup], side: Side
) -> Dict[Tuple[int, int], int]:
    """Channels (start, end) of a side → index of their group."""
    return {
        (channel['start'], channel['end']): index
        for index, group in enumerate(groups)
        for channel in all_channels(group.config)
        if (channel['name'], channel['is_output_channel']) == side
    }


def _together(places: Sequence[Dict[Tuple[int, int], int]]) -> List[Set[int]]:
    """Groups that meet at a place, directly or through others."""
    found: List[Set[int]] = []
    for key in dict.fromkeys(key for place in places for key in place):
        new = {place[key] for place in places if key in place}
        for old in [old for old in found if old & new]:
            found.remove(old)
            new |= old
        found.append(new)
    return found


def _size(group: ChannelGroup) -> int:
    return group.config['init_args']['num_channels']


def _merged(groups: Sequence[ChannelGroup]) -> Dict[str, Any]:
    """Config of one group with all channels of some."""
    channels = {
        key: [c for group in groups for c in group.config['channels'][key]]
        for key in ('output_related', 'input_related')
    }
    return {**groups[0].config, 'channels': channels}
