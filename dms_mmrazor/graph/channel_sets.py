"""Which channels of mmrazor's graph belong together, found in one pass.

mmrazor asks for the set of every channel by copying the sets below it, level
by level: minutes for a network with tens of thousands of channels.
"""

from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Tuple

from mmrazor.structures.graph.channel_flow import ChannelElem, ChannelTensor
from mmrazor.structures.graph.channel_nodes import ChannelNode

from dms_mmrazor.graph.channel_groups import TORN


class ChannelSet(NamedTuple):
    """Channels that are one.

    Attributes:
        tensors (frozenset[int]): Ids of the tensors that they are in.
            Channels of the same tensors are one group.
        first (int): Smallest index that one of them has in its tensor.
    """

    tensors: frozenset
    first: int


def group_configs(nodes: Iterable[ChannelNode]) -> List[Dict[str, Any]]:
    """Groups of channels as mmrazor's ``generate_units_config`` has them.

    It takes channels for one group that belong to the same tensors. Shuffled
    several times, they are tied in other ways; such a group is ``TORN``.

    Args:
        nodes (Iterable[ChannelNode]): Nodes through which channels were
            propagated, in their order.

    Returns:
        list[dict]: ``init_args`` and ``channels``, one of each group.
    """
    sets = _ChannelSets()
    groups: Dict[frozenset, Dict[str, Any]] = {}
    parts: List[Tuple[frozenset, List[ChannelSet]]] = []
    for node in nodes:
        for is_output in (True, False):
            tensor = node.in_channel_tensor
            if is_output:
                tensor = node.out_channel_tensor
            for start, found in _parts(tensor, sets):
                side = dict(
                    name=node.module_name if node.is_module else node.val,
                    start=start,
                    end=start + len(found),
                    is_output_channel=is_output,
                )
                group = found[0].tensors
                channels = groups.setdefault(group, _empty())['channels']
                key = 'output_related' if is_output else 'input_related'
                if side not in channels[key]:
                    channels[key].append(side)
                parts.append((group, found))
    for config in groups.values():
        sides = [s for part in config['channels'].values() for s in part]
        number = min(side['end'] - side['start'] for side in sides)
        config['init_args']['num_channels'] = number
    for group, found in parts:
        # Those of a group norm go in whole groups: fewer than a side has.
        # If all of them are tied to one another, the group is torn.
        args = groups[group]['init_args']
        distinct = len({id(channels) for channels in found})
        if distinct > 1:
            args['num_channels'] = min(args['num_channels'], distinct)
    _mark_torn(groups, parts)
    return list(groups.values())


def _mark_torn(
    groups: Dict[frozenset, Dict[str, Any]],
    parts: List[Tuple[frozenset, List[ChannelSet]]],
) -> None:
    """Mark groups whose channels are not one set for each element."""
    known: Dict[frozenset, List[int]] = {}
    for group, found in parts:
        size = groups[group]['init_args']['num_channels']
        ids = [id(channels) for channels in found]  # all of them are alive
        each, rest = divmod(len(ids), size)
        first = known.setdefault(group, ids[::each])
        expanded = [number for number in first for _ in range(each)]
        one_each = len(set(first)) == len(first) == size
        if rest or not one_each or expanded != ids:
            groups[group][TORN] = True


def _empty() -> Dict[str, Any]:
    channels: Dict[str, Any] = dict(input_related=[], output_related=[])
    return dict(init_args=dict(num_channels=1), channels=channels)


def _parts(
    tensor: ChannelTensor, sets: '_ChannelSets'
) -> Iterator[Tuple[int, List[ChannelSet]]]:
    """Where channels of one group start in a tensor, and their sets.

    A group that starts anew, such as one that was repeated, is two parts.
    """
    found = [sets[element] for element in tensor]
    start = 0
    for index in range(1, len(found) + 1):
        if (
            index == len(found)
            or found[index].tensors is not found[index - 1].tensors
            or found[index].first < found[index - 1].first
        ):
            yield start, found[start:index]
            start = index


class _ChannelSets:
    """The set of each channel, collected when it is first asked for."""

    def __init__(self) -> None:
        self._sets: Dict[ChannelElem, ChannelSet] = {}
        # Equal sets of tensors are one object, which is fast to compare.
        self._tensors: Dict[frozenset, frozenset] = {}

    def __getitem__(self, element: ChannelElem) -> ChannelSet:
        if element not in self._sets:
            self._collect(element)
        return self._sets[element]

    def _collect(self, element: ChannelElem) -> None:
        root = element
        while root._parent is not None:
            root = root._parent
        members, waiting = [], [root]
        while waiting:
            member = waiting.pop()
            members.append(member)
            waiting.extend(member._subs)
        tensors = frozenset(id(m.owing_tensor) for m in members)
        tensors = self._tensors.setdefault(tensors, tensors)
        first = min(member.index_in_tensoor for member in members)
        found = ChannelSet(tensors, first)
        for member in members:
            self._sets[member] = found
