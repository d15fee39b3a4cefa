"""From nodes of a trace to nodes of mmrazor's channel graph."""

import operator
from typing import Any, Optional, Sequence

import torch
from mmrazor.structures.graph.channel_graph import (
    default_channel_node_converter,
)
from mmrazor.structures.graph.channel_nodes import (
    BindChannelNode,
    ChannelNode,
    InputChannelNode,
    PassUnionChannelNode,
)
from mmrazor.structures.graph.module_graph import (
    FxTracerToGraphConverter,
    ModuleNode,
)
from mmrazor.structures.graph.pseudo_fx_graph import FxBaseNode
from torch import fx, nn
from torch.nn import functional as F

from dms_mmrazor.graph.channel_groups import UNFOLLOWED, has_vectors
from dms_mmrazor.graph.channel_nodes import (
    AttentionChannelNode,
    CatNode,
    FixedChannelNode,
    InProjectionNode,
    LinearChannelNode,
    MixingChannelNode,
    MovedChannelNode,
    NormChannelNode,
    ParameterChannelNode,
    SourceChannelNode,
)
from dms_mmrazor.graph.channel_places import is_mover
from dms_mmrazor.graph.function_nodes import FunctionNode
from dms_mmrazor.graph.node_values import (
    BEGINS,
    IN_PROJECTION,
    SHAPE,
    attribute,
    place_of,
    source_of,
)
from dms_mmrazor.graph.recorder import written
from dms_mmrazor.graph.training_pass import read_in_training
from dms_mmrazor.graph.unread_values import unread
from dms_mmrazor.layers import is_attention, is_layer, kind_of, masked_form
from dms_mmrazor.layers.block import block_kind_of
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


class BeginningNode(ParameterNode):
    """Numbers that no layer gives, which one reads; ``val`` says so."""


class InputProjection(TracedNode):
    """What an attention reads; ``val`` is the full name of its weight."""


def _untraced_module(node: fx.Node, model: nn.Module) -> Optional[nn.Module]:
    """The module with weights whose code the trace could not follow."""
    owner = node.args[0] if node.args else None
    if node.op != 'call_method' or getattr(owner, 'op', '') != 'get_attr':
        return None
    module = attribute(model, owner.target)
    if isinstance(module, nn.Module) and any(
        True for _ in module.parameters()
    ):
        return module
    return None


class ModuleGraphConverter(FxTracerToGraphConverter):
    """mmrazor's converter; nodes remember the trace, parameters a name."""

    def _node_converter(self, node: FxBaseNode) -> TracedNode:
        traced = node.val
        if traced.op == 'placeholder':
            return TracedNode(traced, 'input_placeholder')
        if node.is_get_attr():
            return ParameterNode(traced, traced.target)
        if BEGINS in traced.meta:
            reason = f'{place_of(traced)}, no layer, gives its channels'
            return BeginningNode(traced, f'{UNFOLLOWED}{reason}')
        source = source_of(traced)
        if source:
            return ParameterNode(traced, source)
        if IN_PROJECTION in traced.meta:
            return InputProjection(traced, traced.meta[IN_PROJECTION])
        module = _untraced_module(traced, traced.graph.owning_module)
        if module is not None:
            return TracedNode(traced, module)
        return TracedNode(traced, super()._node_converter(node).val)


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
    if node.is_module and node.module_name in fixed:
        return _fixed_node(node)
    if node.is_module and node.module_name in passes:
        return PassUnionChannelNode(node.name, 'pass_placeholder')
    # mmrazor inserts nodes of its own, which no trace has.
    traced = getattr(node, 'traced', None)
    found = None if traced is None else _input_node(node)
    if found is None and isinstance(node.val, nn.Module):
        found = _module_node(node, traced)
    if found is None and traced is not None:
        found = _function_node(node)
    return found or default_channel_node_converter(node)


def _input_node(node: TracedNode) -> Optional[ChannelNode]:
    """Channels that begin here: an input of the model or a parameter."""
    shape = node.traced.meta[SHAPE]
    if node.traced.op == 'placeholder':
        size = shape[_input_dim(node.traced)]
        return InputChannelNode(node.name, node.val, input_channels=size)
    if isinstance(node, InputProjection):
        size = shape[-1]
        return InProjectionNode(node.name, node.val, input_channels=size)
    if isinstance(node, BeginningNode):
        size = shape[_input_dim(node.traced)]
        return ParameterChannelNode(node.name, node.val, input_channels=size)
    called = node.traced.op == 'call_module'
    if isinstance(node, ParameterNode) and called and len(shape) == 4:
        owner = node.traced.graph.owning_module
        if kind_of(attribute(owner, node.val)) is not None:
            return SourceChannelNode(
                node.name, node.val, input_channels=shape[1]
            )
    if isinstance(node, ParameterNode):
        size = shape[channel_dim(torch.empty(shape, device='meta'))]
        return ParameterChannelNode(node.name, node.val, input_channels=size)
    return None


def _module_node(
    node: ModuleNode, traced: Optional[fx.Node]
) -> Optional[ChannelNode]:
    """A layer, attention or module with weights that mmrazor does not know."""
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
    if kind is not None and kind.passes:
        return NormChannelNode.copy_from(node)
    return None


def _function_node(node: TracedNode) -> Optional[ChannelNode]:
    """A call of a function that joins, moves, writes or divides channels."""
    traced = node.traced
    if node.val is written:
        return _written_node(node)
    if node.val is read_in_training:
        reason = 'what runs only in training reads its channels'
        return FixedChannelNode(node.name, f'{UNFOLLOWED}{reason}', 1)
    if node.val is unread:
        # It has no reason to hold what it reads.
        return FixedChannelNode(node.name, 'unread', 1)
    if node.val is F.normalize and _divides_channels(traced):
        place = place_of(traced)
        reason = f'{UNFOLLOWED}{place} divides by the norm of all channels'
        return FixedChannelNode(node.name, reason, traced.meta[SHAPE][1])
    # Each look at a function of torch's C code may give another object.
    if node.val == torch.cat:
        return _cat_node(node, traced)
    if is_mover(traced) and len(node.prev_nodes) == 1:
        moved = MovedChannelNode(traced, node.name, node.val)
        moved.module_name = node.module_name
        return moved
    return FunctionNode(node) if _is_function(node) else None


def _is_function(node: TracedNode) -> bool:
    """Whether a node calls something without weights of its own."""
    if not node.prev_nodes or node.is_output():
        return False
    if isinstance(node.val, nn.Module):
        known = kind_of(node.val) or block_kind_of(node.val)
        own = next(node.val.parameters(), None) is not None
        return node.traced.op == 'call_module' and not known and not own
    return node.traced.op in ('call_function', 'call_method')


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
    new.sources = [prev.traced for prev in node.prev_nodes]
    return new
