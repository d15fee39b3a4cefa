"""Layers that share a parameter are cut alike, or not at all."""

from typing import Dict, List, Sequence, Set, Tuple

from torch import nn

from dms_mmrazor.graph.channel_groups import (
    ChannelGroup,
    reason_against,
)
from dms_mmrazor.layers import is_layer, is_norm, kind_of
from dms_mmrazor.layers.channel_holder import channel_dim

Owner = Tuple[nn.Module, str]

Layer = Tuple[str, bool]
"""A layer, and whether its output side is meant."""


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
            layers = _layers(owners, modules, is_output)
            result = _tie(result, layers, modules)
    return result


def _layers(
    owners: Sequence[Owner], modules: Dict[str, nn.Module], is_output: bool
) -> List[Layer]:
    """What a shared parameter has in its first or second dimension.

    What is no layer has its channels under the name of the parameter.
    """
    names = {module: name for name, module in modules.items()}
    layers = []
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
            layers.append((part, True))
        elif is_output or key in columns or is_norm(module):
            layers.append((name, is_output or is_norm(module)))
    return layers


def _tie(
    groups: List[ChannelGroup],
    layers: Sequence[Layer],
    modules: Dict[str, nn.Module],
) -> List[ChannelGroup]:
    """Merge groups that are at the same place of several layers."""
    places = [_places(groups, layer) for layer in layers]
    involved = {index for place in places for index in place.values()}
    if not involved:
        return groups
    together = _together(places)
    reasons = [groups[i].reason for i in involved if groups[i].reason]
    sizes = [{groups[i].size for i in indices} for indices in together]
    alike = all(place.keys() == places[0].keys() for place in places)
    if reasons or not alike or any(len(size) > 1 for size in sizes):
        names = ' and '.join(dict.fromkeys(name for name, _ in layers))
        reason = f'{names} share a parameter and cannot be cut alike'
        reason = f'{reason}: {reasons[0]}' if reasons else reason
        return [
            group._replace(reason=group.reason or reason * (i in involved))
            for i, group in enumerate(groups)
        ]
    result = list(groups)
    for indices in together:
        first, *others = sorted(indices)
        sides = [s for i in (first, *others) for s in groups[i].sides]
        sides.sort(key=lambda side: not side.is_output)
        merged = groups[first]._replace(sides=tuple(sides))
        reason = reason_against(merged, modules)
        result[first] = merged._replace(reason=reason)
        for other in others:
            result[other] = result[other]._replace(name='')
    return [group for group in result if group.name]


def _places(
    groups: Sequence[ChannelGroup], layer: Layer
) -> Dict[Tuple[int, int], int]:
    """Channels (start, end) of a layer's side → index of their group."""
    return {
        (side.start, side.end): index
        for index, group in enumerate(groups)
        for side in group.sides
        if (side.name, side.is_output) == layer
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
