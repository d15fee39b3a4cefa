"""Nodes of mmrazor's channel graph for calls of functions."""

import operator
from typing import Any, FrozenSet, List, Optional, Sequence, Tuple

import torch
from mmrazor.structures.graph.channel_flow import ChannelTensor
from mmrazor.structures.graph.channel_nodes import (
    BindChannelNode,
    ChannelNode,
    assert_channel,
)
from mmrazor.structures.graph.module_graph import ModuleNode
from torch import fx, nn
from torch.nn import functional as F

from dms_mmrazor.graph.channel_groups import UNFOLLOWED
from dms_mmrazor.graph.channel_nodes import MovedChannelNode
from dms_mmrazor.graph.node_values import SHAPE, called_module, place_of
from dms_mmrazor.graph.tried_functions import Tried, try_function

_BY_ELEMENT: FrozenSet[Any] = frozenset(
    {
        *(operator.add, operator.sub, operator.mul, operator.truediv),
        *(operator.iadd, operator.isub, operator.imul, operator.itruediv),
        *(operator.neg, operator.pow, operator.getitem),
        *(torch.add, torch.sub, torch.mul, torch.relu, torch.sigmoid),
        *(F.relu, F.relu6, F.leaky_relu, F.gelu, F.silu, F.dropout),
        *('add', 'sub', 'mul', 'div', 'add_', 'sub_', 'mul_', 'div_'),
        *('relu', 'relu_', 'sigmoid', 'tanh', 'clone', 'detach', 'to'),
        *('float', 'half', 'type', 'type_as', 'contiguous', 'clamp'),
    }
)
"""Functions and methods of which it is known that they mix no channels."""

_ALONE = (
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Sigmoid,
    nn.Tanh,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Upsample,
)
"""Modules likewise; others are tried."""


class FunctionNode(BindChannelNode):
    """A function of tensors: their channels are one, go on, or end here.

    Args:
        node (ModuleNode): The node that it stands for, with the trace's.
    """

    def __init__(self, node: ModuleNode) -> None:
        super().__init__(node.name, node.val, node.module_name)
        self.traced: fx.Node = node.traced
        self._sources = {
            previous.name: getattr(previous, 'traced', None)
            for previous in node.prev_nodes
        }
        self._known_for: Tuple[Tuple[str, int], ...] = ()
        self._known: Optional[List[Tried]] = None

    def channel_forward(self, tensors: List[ChannelTensor]) -> ChannelTensor:
        """Tie what each element of the output is made of."""
        found, going = self._tried(), self._going_on()
        if found is None or len(going) == len(tensors):
            size = self.in_channels
            # What is broadcast over all channels is not one of them.
            joined = [t for t in tensors if len(t) == size]
            return super().channel_forward(joined)
        place = place_of(self.traced)
        self.val = f'{UNFOLLOWED}{place} computes with all channels'
        ended = [t for i, t in enumerate(tensors) if i not in going]
        self.in_channel_tensor = ChannelTensor.cat(ended)
        self.out_channel_tensor = ChannelTensor(self.out_channels)
        for index in going:
            return tensors[index]
        return self.out_channel_tensor

    def check_channel(self) -> None:
        """Whatever a product reads fits."""
        if self._tried() is None or len(self._going_on()) > 1:
            for previous in self.prev_nodes:
                fits = previous.out_channels in (1, self.in_channels)
                assert_channel(fits, self)

    def _get_in_channels_by_prev_nodes(self, prev_nodes: List[Any]) -> int:
        return max((node.out_channels for node in prev_nodes), default=3)

    def _get_out_channel_by_in_channels(self, in_channels: int) -> int:
        going = self._going_on()
        if self._tried() is None or len(going) > 1:
            return in_channels
        for index in going:
            return self.prev_nodes[index].out_channels
        shape = self.traced.meta[SHAPE] or (1,)
        return shape[1] if len(shape) > 3 else shape[-1]

    def _going_on(self) -> List[int]:
        """Of which inputs each channel is one of the output."""
        found = self._tried() or []
        going = [i for i, tried in enumerate(found) if not tried.mixed]
        if len(going) == len(found) and _places(found, going) < 2:
            return going
        # Heads that are multiplied with something have to be as many there;
        # positions of an attention are no channels that somebody gives.
        going = [
            index
            for index in going
            if found[index].dim is not None
            and not _ends_before(self.prev_nodes[index])
        ]
        # Of channels in two dimensions there is every pair.
        return going if _places(found, going) < 2 else []

    @property
    def ends(self) -> bool:
        """Whether none of the channels that it reads goes on."""
        return self._tried() is not None and not self._going_on()

    def _tried(self) -> Optional[List[Tried]]:
        """What it does with each input; ``None``: nobody knows."""
        counts = tuple((n.name, n.out_channels) for n in self.prev_nodes)
        if self._known_for != counts:
            self._known_for = counts
            self._known = self._try(counts)
        return self._known

    def _try(self, counts: Sequence[Tuple[str, int]]) -> Optional[List[Tried]]:
        sources = [self._sources.get(name) for name, _ in counts]
        if _is_known(self.traced) or None in sources or not sources:
            return None
        numbers = (number for _, number in counts)
        return try_function(self.traced, list(zip(sources, numbers)))


def _places(found: List[Tried], going: List[int]) -> int:
    """In how many dimensions of the output channels are."""
    return len({found[index].dim for index in going} - {None})


def _ends_before(node: ChannelNode) -> bool:
    """Whether channels ended, and what a node gives is something else."""
    if isinstance(node, FunctionNode) and node.ends:
        return True
    if not isinstance(node, (FunctionNode, MovedChannelNode)):
        return False
    return all(map(_ends_before, node.prev_nodes))


def _is_known(node: fx.Node) -> bool:
    """Whether it need not be tried."""
    module = called_module(node)
    if module is not None:
        return type(module) in _ALONE
    return node.target in _BY_ELEMENT
