"""What the nodes of a trace give for a demo input.

A symbolic trace mixes feature maps with sizes, flags and constants: running
it once on a demo input tells which nodes are tensors with channels. Of
feature maps their shapes are enough, for conditions on sizes and to know
where the channels are. So nodes are run on tensors without values, which
takes neither time nor memory. What works on values is run on zeros.
"""

import operator
from copy import copy
from typing import Any, Callable, Dict, Optional, Tuple

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten, tree_map

from dms_mmrazor.errors import raise_device_error
from dms_mmrazor.graph.example_inputs import ExampleInputs
from dms_mmrazor.graph.light_copy import as_shape, shape_copy
from dms_mmrazor.layers import is_weighted
from dms_mmrazor.layers.block import block_kind_of
from dms_mmrazor.layers.channel_holder import is_vector

UNKNOWN = object()
"""Value of a node that cannot be run on its own."""

INPUT = 'dms_input'
"""Which of several inputs a placeholder stands for."""

SHAPE, HAS_CHANNELS = 'dms_shape', 'dms_has_channels'
ARGUMENTS = 'dms_arguments'
DTYPE, VALUE = 'dms_dtype', 'dms_value'

BEHIND_PADDING = 'dms_behind_padding'
"""True for a layer that reads what its module pads with zeros first."""

RECORDED = 'dms_recorded'
"""What a node gave when it was run, with shapes in place of tensors."""

BEGINS = 'dms_begins'
"""True where a layer reads numbers that have no channels so far."""

IN_PROJECTION = 'dms_in_projection'
"""Full name of the weight that a node stands for."""

Values = Dict[fx.Node, Any]


class NodeRunner:
    """Runs the nodes of a trace on a demo input.

    Args:
        model (nn.Module): The model, in evaluation mode.
        image (Tensor | ExampleInputs): Value of the first placeholder, or
            of all: one for each tensor, or all in one.
    """

    def __init__(self, model: nn.Module, image: Any) -> None:
        self._model = model
        self._image = image

    def value(self, node: fx.Node, values: Values) -> Any:
        """Run one node.

        Args:
            node (fx.Node): The node.
            values (dict[fx.Node, Any]): Values of the nodes before it.

        Returns:
            Any: Its value or ``UNKNOWN``.
        """
        if node.op == 'placeholder':
            if isinstance(self._image, ExampleInputs):
                tensors = self._image.tensors
                index = node.meta.get(INPUT)
                return tensors if index is None else tensors[index]
            if not any(n.op == 'placeholder' for n in values):
                return self._image
            return node.args[0] if node.args else None
        if any(values[n] is UNKNOWN for n in node.all_input_nodes):
            return UNKNOWN
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.get)
        try:
            with torch.no_grad():
                return self._run(node, args, kwargs)
        except Exception as error:  # whatever a module's code may raise
            raise_device_error(error)
            return UNKNOWN

    def _run(
        self, node: fx.Node, args: Tuple[Any, ...], kwargs: Dict[str, Any]
    ) -> Any:
        return run_node(node, self._model, args, kwargs)


class ShapeRunner(NodeRunner):
    """Runs them on tensors without values.

    What does not depend on the image, such as a table of indices, has its
    values. A module that works on values is run on zeros; a number that
    depends on values is unknown.

    Args:
        model (nn.Module): As above.
        image (Tensor | ExampleInputs): As above.
    """

    def __init__(self, model: nn.Module, image: Any) -> None:
        super().__init__(model, _without_values(image))
        self._shapes = shape_copy(model)
        self._device = image.device

    def with_image(self, image: Tensor) -> 'ShapeRunner':
        """The same for another image."""
        other = copy(self)
        other._image = as_shape(image)
        return other

    def _run(
        self, node: fx.Node, args: Tuple[Any, ...], kwargs: Dict[str, Any]
    ) -> Any:
        if not any(map(_is_shape, tree_flatten((args, kwargs))[0])):
            return run_node(node, self._model, args, kwargs)
        try:
            shapes = _map_tensors(as_shape, (args, kwargs))
            result = run_node(node, self._shapes, *shapes)
        except Exception as error:  # whatever a module's code may raise
            raise_device_error(error)
            zeros = _map_tensors(self._as_zeros, (args, kwargs))
            result = run_node(node, self._model, *zeros)
            return _shapes_alone(result)
        # Where the code asks for a place, constants shall have values.
        return self._device if isinstance(result, torch.device) else result

    def _as_zeros(self, tensor: Tensor) -> Tensor:
        """What can be run in place of a tensor without values."""
        if not _is_shape(tensor):
            return tensor
        return torch.zeros_like(tensor, device=self._device)


def _without_values(image: Any) -> Any:
    """Shapes of an image, or of all inputs."""
    if isinstance(image, ExampleInputs):
        return image.with_tensors([as_shape(t) for t in image.tensors])
    return as_shape(image)


def run_node(
    node: fx.Node,
    model: nn.Module,
    args: Tuple[Any, ...],
    kwargs: Dict[str, Any],
) -> Any:
    """Do what a node does, on values of its arguments."""
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
    """A parameter, buffer or module by its full name; '' is the model."""
    if not name:
        return model
    owner, _, key = name.rpartition('.')
    return getattr(model.get_submodule(owner), key)


def _is_shape(value: Any) -> bool:
    """Whether a value is a tensor without values."""
    return isinstance(value, Tensor) and value.device.type == 'meta'


def _map_tensors(change: Callable[[Tensor], Any], values: Any) -> Any:
    """Nested values with the tensors among them changed."""
    return tree_map(
        lambda value: change(value) if isinstance(value, Tensor) else value,
        values,
    )


def _shapes_alone(result: Any) -> Any:
    """A result without its values, which are not those of the image."""
    if not all(isinstance(part, Tensor) for part in tree_flatten(result)[0]):
        raise ValueError('this depends on values')
    return _map_tensors(as_shape, result)


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
        if _is_tensor(value):
            node.meta[DTYPE] = value.dtype
        elif value is not UNKNOWN and not holds_tensor(value):
            node.meta[VALUE] = value
        _begin(node)
        node.meta[HAS_CHANNELS] = _has_channels(node, value)
        node.meta[ARGUMENTS] = _plain_arguments(node, values)
        for source in node.all_input_nodes:
            users[source] -= 1
            if not users[source]:
                values[source] = None
    return complete


def _begin(node: fx.Node) -> None:
    """Let channels begin where a layer reads what has none.

    Such are sines of a time step, or what an unknown table gives.
    """
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or source.meta[HAS_CHANNELS]:
        return
    dtype = source.meta.get(DTYPE)
    real = dtype is not None and dtype.is_floating_point
    if real and source.meta[SHAPE] and is_weighted(called_module(node)):
        source.meta[BEGINS] = source.meta[HAS_CHANNELS] = True


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


def called_module(node: fx.Node) -> Optional[nn.Module]:
    """The module that a node calls; ``None`` for others."""
    model = node.graph.owning_module
    if node.op != 'call_module' or model is None:
        return None
    return model.get_submodule(node.target)


def source_of(node: fx.Node) -> str:
    """Full name of what alone gives a module's channels; '' for others.

    A table of vectors that are looked up, whatever these are, or a layer
    that is applied to numbers of the module's own, such as positions.
    """
    module = called_module(node)
    if module is None:
        return ''
    if type(module) is nn.Embedding and module.max_norm is None:
        return f'{node.target}.weight'
    kind = block_kind_of(module)
    source = None if kind is None else kind.source
    return '' if source is None else f'{node.target}.{source}'


def holds_tensor(value: Any) -> bool:
    """Whether a value is a tensor or nested tuples and dicts with one."""
    if isinstance(value, dict):
        value = tuple(value.values())
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
