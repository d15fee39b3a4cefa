"""Which nodes of a traced graph are tensors with channels, and their shapes.

A symbolic graph mixes feature maps with sizes, flags and constants. Running
it once on a demo input tells them apart.
"""

from typing import Any, Dict, Optional, Tuple

import torch
from torch import Tensor, fx, nn

SHAPE, HAS_CHANNELS = 'dms_shape', 'dms_has_channels'
ARGUMENTS = 'dms_arguments'

BEHIND_PADDING = 'dms_behind_padding'
"""True for a layer that reads what its module pads with zeros first."""


UNKNOWN = object()
"""Value of a node that cannot be run on its own."""


def annotate(graph: fx.Graph, model: nn.Module, image: Tensor) -> None:
    """Write into each node's ``meta`` its shape and if it has channels.

    And the arguments after the first, where they are plain values.

    Args:
        graph (fx.Graph): Trace of the model; its first placeholder is the
            image.
        model (nn.Module): The model, in evaluation mode.
        image (Tensor): A demo input.
    """
    values: Dict[fx.Node, Any] = {}
    users = {node: len(node.users) for node in graph.nodes}
    for node in graph.nodes:
        value = node_value(node, model, values, image)
        values[node] = value
        node.meta[SHAPE] = tuple(value.shape) if _is_tensor(value) else None
        node.meta[HAS_CHANNELS] = _has_channels(node, value)
        node.meta[ARGUMENTS] = _plain_arguments(node, values)
        for source in node.all_input_nodes:
            users[source] -= 1
            if not users[source]:
                values[source] = None


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


def node_value(
    node: fx.Node,
    model: nn.Module,
    values: Dict[fx.Node, Any],
    image: Tensor,
) -> Any:
    """Run one node.

    Args:
        node (fx.Node): The node.
        model (nn.Module): The model.
        values (dict[fx.Node, Any]): Values of the nodes before it.
        image (Tensor): Value of the first placeholder.

    Returns:
        Any: Its value or ``UNKNOWN``.
    """
    if node.op == 'placeholder':
        if not any(n.op == 'placeholder' for n in values):
            return image
        return node.args[0] if node.args else None
    if any(values[n] is UNKNOWN for n in node.all_input_nodes):
        return UNKNOWN
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.get)
    try:
        with torch.no_grad():
            return _run(node, model, args, kwargs)
    except Exception:  # whatever a module's code may raise
        return UNKNOWN


def _run(
    node: fx.Node,
    model: nn.Module,
    args: Tuple[Any, ...],
    kwargs: Dict[str, Any],
) -> Any:
    if node.op == 'get_attr':
        return attribute(model, node.target)
    if node.op == 'call_module':
        return model.get_submodule(node.target)(*args, **kwargs)
    if node.op == 'call_method':
        return getattr(args[0], node.target)(*args[1:], **kwargs)
    if node.op == 'call_function':
        return node.target(*args, **kwargs)
    return args[0]


def attribute(model: nn.Module, name: str) -> Optional[Any]:
    """A parameter or buffer by its full name."""
    owner, _, key = name.rpartition('.')
    return getattr(model.get_submodule(owner), key)


def _has_channels(node: fx.Node, value: Any) -> bool:
    """Whether a node carries channels: a tensor that comes from some."""
    if node.op == 'output' or value is UNKNOWN:
        return True
    if node.op == 'placeholder':
        return _is_tensor(value)
    if node.op == 'get_attr':
        return isinstance(value, nn.Parameter) and value.numel() > 1
    if not any(n.meta[HAS_CHANNELS] for n in node.all_input_nodes):
        return False
    return holds_tensor(value)


def holds_tensor(value: Any) -> bool:
    """Whether a value is a tensor or nested tuples with one."""
    if isinstance(value, (tuple, list)):
        return any(holds_tensor(part) for part in value)
    return _is_tensor(value)
