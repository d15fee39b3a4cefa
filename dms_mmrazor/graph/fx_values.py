"""Which nodes of a traced graph are tensors with channels, and their shapes.

A symbolic graph mixes feature maps with sizes, flags and constants. Running
it once on a demo input tells them apart.
"""

import operator
from typing import Any, Dict, Optional, Tuple

from torch import Tensor, fx, nn

from dms_mmrazor.graph.node_values import (
    INPUT,
    UNKNOWN,
    NodeRunner,
    ShapeRunner,
    Values,
)
from dms_mmrazor.layers.block import block_kind_of
from dms_mmrazor.layers.channel_holder import is_vector

SHAPE, HAS_CHANNELS = 'dms_shape', 'dms_has_channels'
ARGUMENTS = 'dms_arguments'

BEHIND_PADDING = 'dms_behind_padding'
"""True for a layer that reads what its module pads with zeros first."""


RECORDED = 'dms_recorded'
"""What a node gave when it was run, with shapes in place of tensors."""

IN_PROJECTION = 'dms_in_projection'
"""Full name of the weight that a node stands for."""


def annotate(graph: fx.Graph, model: nn.Module, image: Tensor) -> None:
    """Write into each node's ``meta`` its shape and if it has channels.

    And the arguments after the first, where they are plain values.

    Args:
        graph (fx.Graph): Trace of the model; its first placeholder is the
            image.
        model (nn.Module): The model, in evaluation mode.
        image (Tensor): A demo input.
    """
    open_outputs(graph)
    # Where shapes do not tell all, the model is run.
    for runner in (ShapeRunner(model, image), NodeRunner(model, image)):
        if _annotate(graph, runner):
            return


def split_inputs(graph: fx.Graph) -> fx.Graph:
    """Give each of several inputs a placeholder of its own, in place.

    Args:
        graph (fx.Graph): Trace of a model whose only placeholder is a list
            of tensors.
    """
    inputs = next(node for node in graph.nodes if node.op == 'placeholder')
    for user in list(inputs.users):
        if user.target is operator.getitem:
            with graph.inserting_before(user):
                single = graph.placeholder(f'input_{user.args[1]}')
            single.meta[INPUT] = user.args[1]
            user.replace_all_uses_with(single)
            graph.erase_node(user)
    if not inputs.users:
        graph.erase_node(inputs)
    return graph


def open_outputs(graph: fx.Graph) -> None:
    """Let a trace give tensors where it gives an object of a class, in place.

    Such are dataclasses, which no layer reads.
    """
    output = next(node for node in graph.nodes if node.op == 'output')
    objects = [n for n in output.all_input_nodes if isinstance(n.target, type)]
    for node in objects:
        output.args = ((output.args, *node.all_input_nodes),)
        output.replace_input_with(node, node.all_input_nodes[0])
        if not node.users:
            graph.erase_node(node)


def _annotate(graph: fx.Graph, runner: NodeRunner) -> bool:
    """Annotate with what one runner finds; whether it could run all."""
    values: Values = {}
    users = {node: len(node.users) for node in graph.nodes}
    complete = True
    for node in graph.nodes:
        if RECORDED in node.meta:
            value = node.meta[RECORDED]
        else:
            value = runner.value(node, values)
        values[node] = value
        complete = complete and value is not UNKNOWN
        node.meta[SHAPE] = tuple(value.shape) if _is_tensor(value) else None
        node.meta[HAS_CHANNELS] = _has_channels(node, value)
        node.meta[ARGUMENTS] = _plain_arguments(node, values)
        for source in node.all_input_nodes:
            users[source] -= 1
            if not users[source]:
                values[source] = None
    return complete


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _plain_arguments(
    node: fx.Node, values: Dict[fx.Node, Any]
) -> Optional[Tuple[Tuple[Any, ...], Dict[str, Any]]]:
    """Arguments after the first, unless one of them holds a tensor."""
    if not (node.args and isinstance(node.args[0], fx.Node)):
        return None
    args, kwargs = fx.node.map_arg(
        (tuple(node.args[1:]), node.kwargs), values.get
    )
    held = [*args, *kwargs.values()]
    if any(holds_tensor(value) or value is UNKNOWN for value in held):
        return None
    return args, dict(kwargs)


def _has_channels(node: fx.Node, value: Any) -> bool:
    """Whether a node carries channels: a tensor that comes from some."""
    if node.op == 'output' or value is UNKNOWN:
        return True
    if node.op == 'placeholder':  # token ids have none
        is_real = _is_tensor(value) and value.is_floating_point()
        return is_real and value.dim() > 0
    if node.op == 'get_attr':
        is_parameter = isinstance(value, nn.Parameter) and value.numel() > 1
        return is_parameter or (_is_tensor(value) and is_vector(value))
    if source_of(node):
        return True
    if not any(n.meta[HAS_CHANNELS] for n in node.all_input_nodes):
        return False
    return holds_tensor(value)


def source_of(node: fx.Node) -> str:
    """Full name of what alone gives a module's channels; '' for others.

    A table of vectors that are looked up, whatever these are, or a layer
    that is applied to numbers of the module's own, such as positions.
    """
    model = node.graph.owning_module
    if node.op != 'call_module' or model is None:
        return ''
    module = model.get_submodule(node.target)
    if type(module) is nn.Embedding and module.max_norm is None:
        return f'{node.target}.weight'
    kind = block_kind_of(module)
    source = None if kind is None else kind.source
    return '' if source is None else f'{node.target}.{source}'


def holds_tensor(value: Any) -> bool:
    """Whether a value is a tensor or nested tuples with one."""
    if isinstance(value, (tuple, list)):
        return any(holds_tensor(part) for part in value)
    return _is_tensor(value)


def place_of(node: fx.Node) -> str:
    """A node in the user's words."""
    if node.op == 'call_module':
        return str(node.target)
    function = getattr(node.target, '__name__', str(node.target))
    stack = node.meta.get('nn_module_stack') or {}  # since torch 2.0
    owner = list(stack)[-1] if stack else ''
    return f'`{function}` in {owner}' if owner else f'`{function}`'
