"""Nodes of mmrazor's channel graph for what mmrazor does not know."""

import operator
from typing import Any, List, Optional, Sequence

import torch
from mmrazor.structures.graph.channel_flow import ChannelTensor
from mmrazor.structures.graph.channel_graph import (
    default_channel_node_converter,
)
from mmrazor.structures.graph.channel_nodes import (
    BindChannelNode,
    CatChannelNode,
    ChannelNode,
    ConvNode,
    InputChannelNode,
    MixChannelNode,
    PassUnionChannelNode,
)
from mmrazor.structures.graph.module_graph import ModuleNode
from torch import fx, nn
from torch.nn import functional as F

from dms_mmrazor.graph.channel_groups import (
    POSITIONS,
    UNFOLLOWED,
    has_vectors,
)
from dms_mmrazor.graph.fx_values import SHAPE, place_of
from dms_mmrazor.graph.moved_channels import (
    Moved,
    channels_dim,
    is_mover,
    moved_channels,
)
from dms_mmrazor.graph.recorder import written
from dms_mmrazor.graph.training_pass import read_in_training
from dms_mmrazor.layers import (
    channels_of,
    is_attention,
    is_layer,
    kind_of,
    masked_form,
)
from dms_mmrazor.layers.attention import input_layer, output_layer
from dms_mmrazor.layers.channel_holder import channel_dim


class TracedNode(ModuleNode):
    """A module node that remembers the node of the trace.

    Args:
        node (fx.Node): The traced node.
        val (Any): As for mmrazor's ``ModuleNode``.
    """

    def __init__(self, node: fx.Node, val: Any) -> None:
        super().__init__(node.name, val)
        self.traced = node


class ParameterNode(TracedNode):
    """A parameter that is used as a tensor; ``val`` is its full name."""

    def is_input(self) -> bool:
        """Nothing precedes it."""
        return True


class InputProjection(TracedNode):
    """What an attention reads; ``val`` is the full name of its weight."""


class ParameterChannelNode(InputChannelNode):
    """Channels of a bare parameter, such as a layer scale."""

    def is_input(self) -> bool:
        """Nothing precedes it."""
        return True


def tie_runs(tensor: ChannelTensor, groups: ChannelTensor) -> None:
    """Tie each run of contiguous channels to one element, in place.

    Args:
        tensor (ChannelTensor): Channels, as many for each element.
        groups (ChannelTensor): Elements.
    """
    each = len(tensor) // len(groups)
    for index, element in enumerate(tensor):
        groups[index // each].union(element)


class NormChannelNode(PassUnionChannelNode):
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

    @property
    def _in_channels(self) -> int:
        return channels_of(self.val, True)

    @property
    def _out_channels(self) -> int:
        return channels_of(self.val, False)


class MixingChannelNode(ConvNode):
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

    @property
    def _in_channels(self) -> int:
        return channels_of(self.val, True)

    @property
    def _out_channels(self) -> int:
        return channels_of(self.val, False)


class LinearChannelNode(PassUnionChannelNode):
    """A linear layer over channels, or over the positions of each channel.

    Behind a convolution the last dimension of [B, C, L] are positions: then
    every channel passes, and the layer's own numbers are none of channels.

    Args:
        name (str): Name of the node.
        linear (nn.Module): The layer.
        module_name (str): Its name.
        traced (fx.Node): The traced node.
    """

    def __init__(
        self, name: str, linear: nn.Module, module_name: str, traced: fx.Node
    ) -> None:
        super().__init__(name, linear, module_name)
        self.linear = linear
        self.traced = traced

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
        return dim is not None and dim != len(shape) - 1

    def channel_forward(self, tensors: List[ChannelTensor]) -> ChannelTensor:
        """New channels, or those that are read."""
        if self.mixes_positions:
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
        return channels_of(input_layer(self.val), False)

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
    shapes: List[Any] = []

    def _joins_channels(self) -> bool:
        """Whether the dimension is that of the channels.

        Then it has as many entries as there are channels, in all inputs.
        """
        return all(
            shape is None or shape[self.dim] == node.out_channels
            for shape, node in zip(self.shapes, self.prev_nodes)
        )

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

    def _moved(self) -> Optional[Moved]:
        """Input channels of each output channel; ``None``: all, in order."""
        channels = self.in_channels
        if self._known_for != channels:
            self._known = moved_channels(self.traced, channels)
            self._known_for = channels
        return self._known

    def _get_out_channel_by_in_channels(self, in_channels: int) -> int:
        moved = self._moved()
        return in_channels if moved is None else len(moved.sources)

    def channel_forward(self, tensors: List[ChannelTensor]) -> ChannelTensor:
        """Tie the output's channels to those that they come from."""
        (read,), moved = tensors, self._moved()
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


def _opaque_node(node: ModuleNode) -> Optional[FixedChannelNode]:
    """A module with weights that gives other channels than it reads.

    ``None`` for those that give as many: they show in the group.
    """
    traced, module = node.traced, node.val
    given = traced.meta[SHAPE]
    for user in traced.users:  # the first of several tensors
        if given is None and user.target is operator.getitem:
            given = user.meta[SHAPE]
    read = traced.args[0].meta[SHAPE] if traced.args else None
    if not given or not read or given[1:] == read[1:]:
        return None
    size = given[1] if len(given) > 3 else given[-1]
    reason = (
        f'{UNFOLLOWED}{node.module_name} is a {type(module).__name__}, not '
        'supported'
    )
    return FixedChannelNode(node.name, reason, size)


def _fixed_node(node: ModuleNode) -> FixedChannelNode:
    """A module whose channels the config fixes."""
    shape = node.traced.meta[SHAPE]
    if shape is None:
        raise ValueError(
            f'`parse_cfg.fixed` names {node.module_name}, which does not '
            'give one tensor'
        )
    size = shape[1] if len(shape) == 4 else shape[-1]
    reason = f'{UNFOLLOWED}`parse_cfg.fixed` keeps {node.module_name} as it is'
    return FixedChannelNode(node.name, reason, size)


def _is_opaque(module: nn.Module) -> bool:
    """Whether a module has weights that no search knows."""
    known = masked_form(type(module)) is not None or is_layer(module)
    return not known and has_vectors(module)


def convert_node(
    node: ModuleNode,
    passes: Sequence[str] = (),
    fixed: Sequence[str] = (),
) -> ChannelNode:
    """The channel node of a module node: ours, else mmrazor's.

    Args:
        node (ModuleNode): Node of the module graph.
        passes (Sequence[str]): Modules that give each channel that they
            read. Defaults to ().
        fixed (Sequence[str]): Modules whose channels all stay. Defaults to
            ().

    Returns:
        ChannelNode: Node of the channel graph.
    """
    traced = getattr(node, 'traced', None)
    if traced is not None and traced.op == 'placeholder':
        size = traced.meta[SHAPE][_input_dim(traced)]
        return InputChannelNode(node.name, node.val, input_channels=size)
    if isinstance(node, InputProjection):
        size = node.traced.meta[SHAPE][-1]
        return InProjectionNode(node.name, node.val, input_channels=size)
    if isinstance(node, ParameterNode):
        shape = traced.meta[SHAPE]
        size = shape[channel_dim(torch.empty(shape, device='meta'))]
        return ParameterChannelNode(node.name, node.val, input_channels=size)
    if node.is_module and node.module_name in fixed:
        return _fixed_node(node)
    if node.is_module and node.module_name in passes:
        return PassUnionChannelNode(node.name, 'pass_placeholder')
    if isinstance(node.val, nn.Module):
        if is_attention(node.val):
            return AttentionChannelNode.copy_from(node)
        kind = kind_of(node.val)
        if kind is not None and kind.mixes:
            if traced is None or kind.channels_first(node.val):
                return MixingChannelNode.copy_from(node)
            names = (node.name, node.val, node.module_name)
            return LinearChannelNode(*names, traced)
        if traced is not None and _is_opaque(node.val):
            opaque = _opaque_node(node)
            if opaque is not None:
                return opaque
        norm = kind is not None and kind.passes
        if norm and not kind.known_to_mmrazor:
            return NormChannelNode.copy_from(node)
    if node.val is written:
        return _written_node(node)
    if node.val is read_in_training:
        reason = 'what runs only in training reads its channels'
        return FixedChannelNode(node.name, f'{UNFOLLOWED}{reason}', 1)
    if node.val is F.normalize and _divides_channels(traced):
        place = place_of(traced)
        reason = f'{UNFOLLOWED}{place} divides by the norm of all channels'
        return FixedChannelNode(node.name, reason, traced.meta[SHAPE][1])
    # Each look at a function of torch's C code may give another object.
    if node.val == torch.cat and traced is not None:
        return _cat_node(node, traced)
    if traced is not None and is_mover(traced) and len(node.prev_nodes) == 1:
        moved = MovedChannelNode(traced, node.name, node.val)
        moved.module_name = node.module_name
        return moved
    return default_channel_node_converter(node)


def _input_dim(node: fx.Node) -> int:
    """The dimension of an input's channels.

    The second one where it has more than three or a convolution or its like
    reads it, otherwise the last one.
    """
    model = node.graph.owning_module
    read = [
        model.get_submodule(user.target)
        for user in node.users
        if user.op == 'call_module'
    ]
    first = any(is_layer(m) and kind_of(m).channels_first(m) for m in read)
    dims = len(node.meta[SHAPE])
    return 1 if dims > 1 and (first or dims > 3) else dims - 1


def _written_node(node: ModuleNode) -> ChannelNode:
    """A tensor into which something was written."""
    traced = node.traced
    shape = traced.meta[SHAPE]
    dim = 1 if len(shape) > 3 else len(shape) - 1
    index = traced.args[1]
    index = index if isinstance(index, tuple) else (index,)
    if all(isinstance(part, slice) for part in index) and all(
        part == slice(None) for part in index[dim : dim + 1]
    ):
        return BindChannelNode.copy_from(node)  # all channels, somewhere
    reason = f'{UNFOLLOWED}{place_of(traced)}: a part of it is written to'
    return FixedChannelNode(node.name, reason, shape[dim])


def _divides_channels(traced: fx.Node) -> bool:
    """Whether ``F.normalize`` divides [B, C, H, W] by norms over C."""
    shape = traced.meta[SHAPE]
    named = dict(zip(('p', 'dim'), traced.args[1:]))
    dim = {**named, **traced.kwargs}.get('dim', 1)
    return shape is not None and len(shape) > 3 and dim % len(shape) == 1


def _cat_node(node: ModuleNode, traced: fx.Node) -> CatNode:
    new = CatNode.copy_from(node)
    dims = [*traced.args[1:2], *traced.kwargs.values()]
    numbers = [dim for dim in dims if isinstance(dim, int)]
    new.dim = numbers[0] if numbers else 0
    sources = [prev.traced for prev in node.prev_nodes]
    new.shapes = [source.meta.get(SHAPE) for source in sources]
    return new
