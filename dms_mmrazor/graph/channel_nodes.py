"""Nodes of mmrazor's channel graph for what mmrazor does not know."""

import math
from typing import Any, List, Optional

from mmrazor.structures.graph.channel_flow import ChannelTensor
from mmrazor.structures.graph.channel_nodes import (
    BindChannelNode,
    CatChannelNode,
    ConvNode,
    InputChannelNode,
    MixChannelNode,
    PassUnionChannelNode,
)
from torch import fx, nn

from dms_mmrazor.graph.channel_groups import (
    POSITIONS,
    UNFOLLOWED,
)
from dms_mmrazor.graph.channel_places import OVER_POSITIONS, channels_dim
from dms_mmrazor.graph.fixed_numbers import fixed_in_code
from dms_mmrazor.graph.moved_channels import Moved, moved_channels
from dms_mmrazor.graph.node_values import (
    SHAPE,
    place_of,
)
from dms_mmrazor.layers import (
    channels_of,
    kind_of,
)
from dms_mmrazor.layers.attention import count_rows, output_layer


class ParameterChannelNode(InputChannelNode):
    """Channels of a bare parameter, such as a layer scale."""

    def is_input(self) -> bool:
        """Nothing precedes it."""
        return True


class SourceChannelNode(ParameterChannelNode):
    """Channels of a map that a layer gives; it reads none of the model's."""

    def channel_forward(self, tensors: List[ChannelTensor]) -> ChannelTensor:
        """New channels, which have nothing to do with those that it reads."""
        given = super().channel_forward(tensors)
        self.in_channel_tensor = ChannelTensor(1)
        return given


def tie_runs(tensor: ChannelTensor, groups: ChannelTensor) -> None:
    """Tie each run of contiguous channels to one element, in place.

    Args:
        tensor (ChannelTensor): Channels, as many for each element.
        groups (ChannelTensor): Elements.
    """
    each = len(tensor) // len(groups)
    for index, element in enumerate(tensor):
        groups[index // each].union(element)


class _LayerSides:
    """A node with as many channels as the two sides of its layer."""

    @property
    def _in_channels(self) -> int:
        return channels_of(self.val, True)

    @property
    def _out_channels(self) -> int:
        return channels_of(self.val, False)


class NormChannelNode(_LayerSides, PassUnionChannelNode):
    """A layer that gives the channels that it reads.

    Whole groups of a group norm stay together.
    """

    def channel_forward(self, tensors: List[ChannelTensor]) -> ChannelTensor:
        """Give what is read."""
        given = super().channel_forward(tensors)
        groups = kind_of(self.val).groups(self.val)
        if groups:
            tie_runs(given, ChannelTensor(groups))
        return given


class MixingChannelNode(_LayerSides, ConvNode):
    """A layer that gives new channels, made of those that it reads.

    Args:
        name (str): Name of the node.
        val (nn.Module): The layer; of a kind that mixes channels.
        module_name (str): Its name. Defaults to ''.
    """

    def __init__(
        self, name: str, val: nn.Module, module_name: str = ''
    ) -> None:
        # mmrazor's node insists on `nn.Conv2d`.
        MixChannelNode.__init__(self, name, val, module_name)

    def channel_forward(self, tensors: List[ChannelTensor]) -> ChannelTensor:
        """Outputs of a depthwise one go with the input they come from.

        So do the inputs of one that gives a single output for each group.
        """
        number = kind_of(self.val).groups(self.val)
        if number <= 1:
            return MixChannelNode.channel_forward(self, tensors)
        if number < min(self._in_channels, self._out_channels):
            return super().channel_forward(tensors)
        (read,) = tensors
        given = ChannelTensor(self._out_channels)
        groups = ChannelTensor(number)
        for tensor in (read, given):
            tie_runs(tensor, groups)
        self.in_channel_tensor, self.out_channel_tensor = read, given
        return given


class LinearChannelNode(PassUnionChannelNode):
    """A linear layer over channels, or over the positions of each channel.

    Behind a convolution the last dimension of [B, C, L] are positions: then
    every channel passes, and the layer's own numbers are none of channels.

    Args:
        name (str): Name of the node.
        linear (nn.Module): The layer.
        module_name (str): Its name.
        traced (fx.Node): The traced node.

    Attributes:
        over_positions (bool): Whether the propagation of channels has found
            it to be over positions.
    """

    def __init__(
        self, name: str, linear: nn.Module, module_name: str, traced: fx.Node
    ) -> None:
        super().__init__(name, linear, module_name)
        self.linear = linear
        self.traced = traced
        self.over_positions = False

    @property
    def mixes_positions(self) -> bool:
        """Whether the channels that it is given are in another dimension."""
        source = self.traced.args[0] if self.traced.args else None
        shape = source.meta[SHAPE] if isinstance(source, fx.Node) else None
        if shape is None or len(shape) < 3 or len(self.prev_nodes) != 1:
            return False
        channels = self.prev_nodes[0].out_channels
        if len(shape) > 3 and shape[-1] == channels:
            return False  # [B, H, W, C], although H may be C
        dim = channels_dim(source, channels)
        found = dim is not None and dim != len(shape) - 1
        # It may give as many positions as there are channels.
        self.traced.meta[OVER_POSITIONS] = found
        return found

    def channel_forward(self, tensors: List[ChannelTensor]) -> ChannelTensor:
        """New channels, or those that are read."""
        self.over_positions = self.mixes_positions
        if self.over_positions:
            self.val = f'{POSITIONS}{self.module_name}'  # nothing to cut
            return super().channel_forward(tensors)
        return MixChannelNode.channel_forward(self, tensors)

    @property
    def _in_channels(self) -> int:
        if self.mixes_positions:
            return self.prev_nodes[0].out_channels
        return channels_of(self.linear, True)

    @property
    def _out_channels(self) -> int:
        if self.mixes_positions:
            return self.prev_nodes[0].out_channels
        return channels_of(self.linear, False)


class AttentionChannelNode(MixChannelNode):
    """What lies between ``qkv`` and ``proj`` of an attention."""

    @property
    def _in_channels(self) -> int:
        return count_rows(self.val)

    @property
    def _out_channels(self) -> int:
        return channels_of(output_layer(self.val), True)


class InProjectionNode(ParameterChannelNode):
    """The channels that torch's attention reads as query, key and value.

    They are the columns of one weight, so all of them are tied.
    """

    def channel_forward(self, tensors: List[ChannelTensor]) -> ChannelTensor:
        """Tie what is read; the rows of the weight are new channels."""
        read = ChannelTensor(self.in_channels)
        for tensor in tensors:
            read.union(tensor)
        self.in_channel_tensor = self.out_channel_tensor = read
        return ChannelTensor(self.out_channels)

    def is_input(self) -> bool:
        """Something precedes it."""
        return False

    @property
    def _out_channels(self) -> int:
        (core,) = self.next_nodes
        return core.in_channels


class CatNode(CatChannelNode):
    """A concatenation, of channels or (class token) of something else."""

    dim = 1
    sources: List[fx.Node] = []

    def _joins_channels(self) -> bool:
        """Whether the dimension is that of the channels, in all inputs."""
        return all(
            self._is_joined(source, node.out_channels)
            for source, node in zip(self.sources, self.prev_nodes)
        )

    def _is_joined(self, source: fx.Node, channels: int) -> bool:
        """Whether it is that of the channels of an input."""
        shape = source.meta.get(SHAPE)
        if shape is None:
            return True
        # A map may be as high as it has channels.
        found = channels_dim(source, channels)
        if found is None:
            return shape[self.dim] == channels
        return found == self.dim % len(shape)

    def channel_forward(self, tensors: List[ChannelTensor]) -> ChannelTensor:
        """Join the channels, or tie them."""
        if self._joins_channels():
            return super().channel_forward(tensors)
        return BindChannelNode.channel_forward(self, tensors)

    def check_channel(self) -> None:
        """Check the numbers of channels."""
        if self._joins_channels():
            super().check_channel()
        else:
            BindChannelNode.check_channel(self)

    def _get_in_channels_by_prev_nodes(self, prev_nodes: List[Any]) -> int:
        if self._joins_channels():
            return super()._get_in_channels_by_prev_nodes(prev_nodes)
        return prev_nodes[0].out_channels


class MovedChannelNode(PassUnionChannelNode):
    """Parts of the channels, or all of them repeated or in another order.

    Args:
        node (fx.Node): The traced node.
        name (str): Its name in the graph.
        val (Any): As for mmrazor's ``ModuleNode``.
    """

    def __init__(self, node: fx.Node, name: str, val: Any) -> None:
        super().__init__(name, val)
        self.traced = node
        self._known_for = 0
        self._known: Optional[Moved] = None
        self._fixed_for = 0
        self._is_fixed = False

    def _moved(self) -> Optional[Moved]:
        """Input channels of each output channel; ``None``: all, in order."""
        channels = self.in_channels
        if self._known_for != channels:
            self._known = moved_channels(self.traced, channels)
            self._known_for = channels
        return self._known

    def _fixed(self) -> bool:
        """Whether its code would ask a narrower model for the same."""
        channels = self.in_channels
        if self._fixed_for != channels:
            self._fixed_for = channels
            self._is_fixed = fixed_in_code(self.traced, channels)
        return self._is_fixed

    def _get_out_channel_by_in_channels(self, in_channels: int) -> int:
        moved, shape = self._moved(), self.traced.meta[SHAPE]
        if moved is None and shape is not None and self._fixed():
            # A vector that becomes maps has as many channels as there are.
            whole = in_channels == math.prod(shape[1:])
            return shape[1] if whole and len(shape) > 2 else in_channels
        return in_channels if moved is None else len(moved.sources)

    def channel_forward(self, tensors: List[ChannelTensor]) -> ChannelTensor:
        """Tie the output's channels to those that they come from."""
        (read,), moved = tensors, self._moved()
        if self._fixed():
            place = place_of(self.traced)
            self.val = (
                f'{UNFOLLOWED}{place} has the number of channels in its code '
                '(-1, or a size of the tensor, can be followed)'
            )
            self.in_channel_tensor = read
            self.out_channel_tensor = ChannelTensor(self.out_channels)
            return self.out_channel_tensor
        if moved is None:
            return super().channel_forward(tensors)
        for first, *others in moved.together:
            for other in others:
                read[first].union(read[other])
        # New elements: the halves of a split must not look like one group.
        given = ChannelTensor(len(moved.sources))
        if moved.lost:
            place = place_of(self.traced)
            self.val = f'{UNFOLLOWED}{place} changes their order'
        else:
            for element, sources in zip(given, moved.sources):
                for source in sources:
                    read[source].union(element)
        self.in_channel_tensor = read
        self.out_channel_tensor = given
        return given


class FixedChannelNode(MixChannelNode):
    """A module that reads and gives all of its channels.

    Args:
        name (str): Name of the node.
        reason (str): Why, for the report.
        size (int): Number of channels that it gives.
    """

    def __init__(self, name: str, reason: str, size: int) -> None:
        super().__init__(name, reason)
        self.size = size

    def channel_forward(self, tensors: List[ChannelTensor]) -> ChannelTensor:
        """All that is read stays, and all that is given."""
        self.in_channel_tensor = ChannelTensor.cat(tensors)
        self.out_channel_tensor = ChannelTensor(self.size)
        return self.out_channel_tensor

    def check_channel(self) -> None:
        """Whatever it reads fits."""

    def _get_in_channels_by_prev_nodes(self, prev_nodes: List[Any]) -> int:
        return sum(node.out_channels for node in prev_nodes)

    @property
    def _out_channels(self) -> int:
        return self.size
