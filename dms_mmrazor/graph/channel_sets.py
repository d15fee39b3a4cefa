"""Which channels of mmrazor's graph belong together, found in one pass.

mmrazor asks for the set of every channel by copying the sets below it, level
by level: minutes for a network with tens of thousands of channels.
"""

from typing import Dict, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

from mmrazor.structures.graph.channel_flow import ChannelElem, ChannelTensor
from mmrazor.structures.graph.channel_nodes import ChannelNode

from dms_mmrazor.graph.channel_groups import ChannelGroup, Side


class ChannelSet(NamedTuple):
    """Channels that are one.

    Attributes:
        tensors (frozenset[int]): Ids of the tensors that they are in.
            Channels of the same tensors are one group.
        first (int): Smallest index that one of them has in its tensor.
    """

    tensors: frozenset
    first: int


def tied_groups(nodes: Iterable[ChannelNode]) -> List[ChannelGroup]:
    """Groups of channels as mmrazor's ``generate_units_config`` has them.

    It takes channels for one group that belong to the same tensors. Shuffled
    several times, they are tied in other ways; such a group is torn.

    Args:
        nodes (Iterable[ChannelNode]): Nodes through which channels were
            propagated, in their order.

    Returns:
        list[ChannelGroup]: Without names and reasons.
    """
    sets = _ChannelSets()
    sides: Dict[frozenset, Dict[Side, None]] = {}
    parts: Dict[frozenset, List[List[ChannelSet]]] = {}
    for node in nodes:
        name = node.module_name if node.is_module else node.val
        for is_output in (True, False):
            tensor = node.in_channel_tensor
            if is_output:
                tensor = node.out_channel_tensor
            for start, found in _parts(tensor, sets):
                side = Side(name, start, start + len(found), is_output)
                key = found[0].tensors
                sides.setdefault(key, {})[side] = None
                parts.setdefault(key, []).append(found)
    return [_group(list(sides[key]), parts[key]) for key in sides]


def _group(
    sides: Sequence[Side], parts: Sequence[Sequence[ChannelSet]]
) -> ChannelGroup:
    """One group of sides; ``parts``: the sets of all their channels."""
    size = min(side.end - side.start for side in sides)
    for part in parts:
        # Those of a group norm go in whole groups: fewer than a side has.
        # If all of them are tied to one another, the group is torn.
        distinct = len({id(channels) for channels in part})
        if distinct > 1:
            size = min(size, distinct)
    # What stands for a function has channels, but no name.
    named = [side for side in sides if isinstance(side.name, str)]
    # Who gives them first: a group is called after its first side.
    ordered = sorted(named, key=lambda side: not side.is_output)
    return ChannelGroup('', size, tuple(ordered), torn=_is_torn(size, parts))


def _is_torn(size: int, parts: Sequence[Sequence[ChannelSet]]) -> bool:
    """Whether channels are not one set for each of ``size`` elements."""
    first: List[int] = []
    for part in parts:
        ids = [id(channels) for channels in part]  # all of them are alive
        each, rest = divmod(len(ids), size)
        first = first or ids[::each]
        expanded = [number for number in first for _ in range(each)]
        one_each = len(set(first)) == len(first) == size
        if rest or not one_each or expanded != ids:
            return True
    return False


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
