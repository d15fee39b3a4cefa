"""What the nodes of a trace give for a demo input.

Of feature maps a trace needs the shapes, for conditions on sizes and to know
where the channels are. So nodes are run on tensors without values, which
takes neither time nor memory. What works on values is run on zeros.
"""

from copy import copy
from typing import Any, Callable, Dict, Optional, Tuple

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten, tree_map

from dms_mmrazor.graph.example_inputs import ExampleInputs
from dms_mmrazor.graph.light_copy import as_shape, shape_copy

UNKNOWN = object()
"""Value of a node that cannot be run on its own."""

INPUT = 'dms_input'
"""Which of several inputs a placeholder stands for."""

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
        except Exception:  # whatever a module's code may raise
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
        except Exception:  # whatever a module's code may raise
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
