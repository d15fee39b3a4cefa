"""From a trace of a model to mmrazor's graph of channel dependencies."""

import operator
import sys
from functools import partial
from types import ModuleType
from typing import Any, Dict, Sequence, Tuple

import torch
from mmrazor.structures.graph.base_graph import BaseGraph
from mmrazor.structures.graph.channel_graph import ChannelGraph
from mmrazor.structures.graph.channel_nodes import (
    ChannelNode,
    EndNode,
    ExpandChannelNode,
    InputChannelNode,
)
from mmrazor.structures.graph.pseudo_fx_graph import FxBaseNode
from torch import Tensor, fx, nn

from dms_mmrazor.compat.channel_numbers import remembered_channel_numbers
from dms_mmrazor.graph.channel_groups import UNFOLLOWED
from dms_mmrazor.graph.channel_places import is_mover
from dms_mmrazor.graph.demo import DemoInput, demo_tensor
from dms_mmrazor.graph.node_conversion import (
    ModuleGraphConverter,
    convert_node,
)
from dms_mmrazor.graph.node_values import (
    BEHIND_PADDING,
    HAS_CHANNELS,
    IN_PROJECTION,
    SHAPE,
    annotate,
    attribute,
    place_of,
    source_of,
)
from dms_mmrazor.graph.unread_values import read_unread
from dms_mmrazor.layers import channels_of, kind_of
from dms_mmrazor.layers.attention import (
    attention_kind,
    core_name,
    input_layers,
)
from dms_mmrazor.layers.block import block_kind_of
from dms_mmrazor.layers.multihead import is_multihead


def leaf_types(model: nn.Module) -> Tuple[type, ...]:
    """Types of the model's modules that a trace must not look into."""
    types = {
        type(module)
        for module in model.modules()
        # mmcv's own wrappers are not torch's, which are never looked into.
        if getattr(kind_of(module), 'leaf', False)
        or getattr(block_kind_of(module), 'opaque', False)
    }
    return tuple(sorted(types, key=lambda kind: kind.__qualname__))


def source_files(model: nn.Module) -> Tuple[ModuleType, ...]:
    """Python files of the model's classes, whose functions may be opaque.

    The tracer finds those of a module's own class by itself, but not those
    of its base classes.
    """
    names = {
        base.__module__
        for module in model.modules()
        for base in type(module).__mro__
    }
    foreign = ('torch', 'builtins', 'abc', 'mmengine', 'mmcv', 'typing')
    return tuple(
        sys.modules[name]
        for name in sorted(names)
        if name.partition('.')[0] not in foreign and name in sys.modules
    )


class DMSChannelGraph(ChannelGraph):
    """mmrazor's graph; where channels get lost, the place is known.

    Attributes:
        places (dict[str, str]): Name of a node → what the user knows it by.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: Dict[str, str] = {}

    def add_node(self, node: ChannelNode) -> None:
        """As mmrazor's; the nodes that it inserts have names of their own.

        It calls them `expand_1`, as a trace calls ``Tensor.expand``.
        """
        if isinstance(node, ExpandChannelNode):
            while node.name in self.nodes:
                node.name += '_'
        super().add_node(node)

    def _convert_a_node_to_end_node(self, node: ChannelNode) -> None:
        """Let channels end before a node that does not fit them."""
        place = self.places.get(node.name, node.name)
        reason = f'{UNFOLLOWED}the tracer loses its channels at {place}'
        end = self.add_or_find_node(EndNode(f'end_{node.name}', reason))
        given = [previous.out_channels for previous in node.prev_nodes]
        for previous in list(node.prev_nodes):
            self.disconnect(previous, node)
            self.connect(previous, end)
        try:
            channels = node.in_channels
        except AssertionError:  # it has as many as what it reads, now nothing
            channels = max(given, default=1)
        start = InputChannelNode(
            f'start_{node.name}', reason, input_channels=channels
        )
        self.connect(self.add_or_find_node(start), node)


def build_channel_graph(
    trace: fx.Graph,
    model: nn.Module,
    demo: DemoInput,
    passes: Sequence[str] = (),
    fixed: Sequence[str] = (),
) -> ChannelGraph:
    """mmrazor's graph of channel dependencies, channels propagated.

    Args:
        trace (fx.Graph): Trace of the model; attentions in it are opened.
        model (nn.Module): The model, in evaluation mode.
        demo (tuple | ExampleInputs): (B, C, H, W), or what the model is
            called with.
        passes (Sequence[str]): Modules that give each channel that they
            read. Defaults to ().
        fixed (Sequence[str]): Modules whose channels all stay. Defaults to
            ().
    """
    trace.owning_module = model
    annotate(trace, model, demo_tensor(model, demo))
    read_unread(trace, model, demo)
    open_attentions(trace, model)
    open_scales(trace, model)
    module_graph = ModuleGraphConverter(_base_graph(trace), model).graph
    module_graph._model = model
    _name_modules(module_graph, model)
    module_graph.check(fix=True)
    convert = partial(convert_node, passes=passes, fixed=fixed)
    with remembered_channel_numbers():
        graph = DMSChannelGraph.copy_from(module_graph, convert)
        graph.places = {node.name: place_of(node) for node in trace.nodes}
        graph.check(fix=True)
        graph.forward()
    return graph


def open_attentions(trace: fx.Graph, model: nn.Module) -> None:
    """Replace each attention by ``qkv``, its core and ``proj``, in place."""
    open_multiheads(trace, model)
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters())
    for node in list(trace.nodes):
        # Between both layers are heads times dims, which are no channels of
        # the network: the core cuts what is tied before it off from what is
        # tied behind it, and heads and dims have groups of their own.
        core = None
        if node.op == 'call_module':
            core = core_name(modules[node.target])
        if core is None:
            continue
        name = f'{node.target}.{core}' if core else node.target
        kind = attention_kind(modules[name])
        before = set(trace.nodes)
        with trace.inserting_before(node):
            rows = [
                _call_in_turn(trace, name, path, node.args[0])
                for path in kind.paths(modules[name])
            ]
            x = rows[0]
            if len(rows) > 1:
                x = trace.call_function(torch.cat, (rows, -1))
            x = trace.call_module(name, (x,))
            x = trace.call_module(f'{name}.{kind.output_layer}', (x,))
            if f'{name}.gamma1.weight' in parameters:
                scale = trace.get_attr(f'{name}.gamma1.weight')
                x = trace.call_function(operator.mul, (x, scale))
        for new in set(trace.nodes) - before:
            new.meta[HAS_CHANNELS] = True
            new.meta[SHAPE] = node.meta[SHAPE][-1:]
        x.meta[SHAPE] = node.meta[SHAPE]
        for row, layer in zip(rows, input_layers(modules[name])):
            row.meta[SHAPE] = (channels_of(layer, False),)
            row.meta[BEHIND_PADDING] = bool(core) or kind.pads
        node.replace_all_uses_with(x)
        trace.erase_node(node)


def _call_in_turn(
    trace: fx.Graph, owner: str, path: Sequence[str], x: fx.Node
) -> fx.Node:
    """Modules of an attention, one after another."""
    for name in path:
        x = trace.call_module(f'{owner}.{name}', (x,))
    return x


def open_multiheads(trace: fx.Graph, model: nn.Module) -> None:
    """Replace torch's attentions by what they are made of, in place."""
    modules = dict(model.named_modules())
    for node in list(trace.nodes):
        if node.op != 'call_module' or not is_multihead(modules[node.target]):
            continue
        module, name = modules[node.target], node.target
        named = [node.kwargs.get(key) for key in ('query', 'key', 'value')]
        read = [x for x in (*node.args[:3], *named) if x is not None]
        shape = read[0].meta[SHAPE]
        before = set(trace.nodes)
        with trace.inserting_before(node):
            rows = trace.call_function(_project, tuple(dict.fromkeys(read)))
            x = trace.call_module(name, (rows,))
            x = trace.call_module(f'{name}.out_proj', (x,))
        for new in set(trace.nodes) - before:
            new.meta.update({HAS_CHANNELS: True, SHAPE: shape})
        rows.meta[IN_PROJECTION] = f'{name}.in_proj_weight'
        rows.meta[SHAPE] = (module.embed_dim,)
        for user in list(node.users):
            if user.target is operator.getitem and user.args[1] == 0:
                user.replace_all_uses_with(x)
                trace.erase_node(user)
            else:  # the attention itself has no channels
                user.meta[HAS_CHANNELS] = False
        if node.users:
            node.meta[HAS_CHANNELS] = False
        else:
            # It would tie what it reads to what it gives once more.
            trace.erase_node(node)


def _project(*read: Tensor) -> Tensor:
    """Stands in a trace for the input projection of an attention."""
    return read[0]


def open_scales(trace: fx.Graph, model: nn.Module) -> None:
    """Let modules that could not be traced show their one vector, in place.

    Such is mmcv's ``LayerScale``: a call with the module as an argument.
    """
    for node in trace.nodes:
        if node.op != 'get_attr':
            continue
        value = attribute(model, node.target)
        if not isinstance(value, nn.Module):
            continue
        parameters = dict(value.named_parameters())
        if len(parameters) == 1:
            ((key, parameter),) = parameters.items()
            if parameter.dim() == 1 and parameter.numel() > 1:
                node.target = f'{node.target}.{key}'
                node.meta[SHAPE] = tuple(parameter.shape)
                node.meta[HAS_CHANNELS] = True


def _base_graph(trace: fx.Graph) -> BaseGraph:
    """The nodes of a trace that carry channels.

    A part of a split that nobody reads does not reach the output.
    """
    graph = BaseGraph()
    nodes = {
        node: graph.add_or_find_node(FxBaseNode(node.name, node))
        for node in trace.nodes
        if node.meta[HAS_CHANNELS] and (node.users or not is_mover(node))
    }
    for node in nodes:
        for source in node.all_input_nodes:
            if source in nodes and not source_of(node):
                graph.connect(nodes[source], nodes[node])
    return graph


def _name_modules(graph: Any, model: nn.Module) -> None:
    names = {module: name for name, module in model.named_modules()}
    for node in graph:
        if isinstance(node.val, nn.Module):
            node.module_name = names[node.val]
