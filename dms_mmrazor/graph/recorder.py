"""A trace of what a model does on one input, whatever its code is like.

Code that decides by values, loops or writes into slices cannot be traced
with symbols. It can be run, and what it calls can be written down. Numbers
that it computes, such as half of the channels, are constants then: what
follows of them is only as good as the proof.
"""

import operator
from types import MethodWrapperType
from typing import Any, Callable, Dict, List, Tuple
from weakref import ReferenceType, ref

from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from dms_mmrazor.graph.example_inputs import ExampleInputs
from dms_mmrazor.graph.light_copy import as_shape
from dms_mmrazor.graph.node_values import (
    INPUT,
    RECORDED,
    holds_tensor,
)
from dms_mmrazor.graph.outputs import flatten_tensors
from dms_mmrazor.graph.running import intercepting


class Recording(fx.Graph):
    """What a model did.

    Attributes:
        constants (dict[str, Tensor]): Targets of ``get_attr`` nodes that are
            not in the model: tensors that come from elsewhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.constants: Dict[str, Tensor] = {}

    def give_constants(self, model: nn.Module) -> None:
        """Make the constants attributes of a throw-away copy."""
        for name, tensor in self.constants.items():
            setattr(model, name, tensor)


def written(tensor: Tensor, index: Any, value: Any) -> Tensor:
    """Stands in a recording for a tensor after ``tensor[index] = value``."""
    return tensor


def record(
    model: nn.Module,
    run: Callable[[nn.Module, Any], Any],
    image: Any,
    is_leaf: Callable[[nn.Module, str], bool],
) -> Recording:
    """Run a model and write down what it does with an image.

    Args:
        model (nn.Module): A throw-away copy.
        run (Callable): Runs it on the image.
        image (Tensor | ExampleInputs): [B, C, H, W], or what the model is
            called with.
        is_leaf (Callable): Whether it is not looked into a module; takes
            the module and its name.

    Returns:
        Recording: Its nodes know the shapes of what they gave.
    """
    recorder = _Recorder(model, image)
    names = {module: name for name, module in model.named_modules()}

    def around(module: nn.Module, forward: Any, *args: Any, **kw: Any) -> Any:
        name = names[module]
        leaf = bool(name) and is_leaf(module, name)
        return recorder.call(name, leaf, forward, args, kw)

    with intercepting(names, around), recorder:
        outputs = run(model, image)
    recorder.finish(outputs)
    return recorder.graph


class _Recorder(TorchFunctionMode):
    """Writes down the calls of leaf modules and of torch's functions.

    Args:
        model (nn.Module): The model.
        image (Tensor | ExampleInputs): What it is run on.
    """

    def __init__(self, model: nn.Module, image: Any) -> None:
        super().__init__()
        self.graph = Recording()
        self._own = {
            id(tensor): name
            for tensors in (model.named_buffers(), model.named_parameters())
            for name, tensor in tensors
        }
        # Tensors are not kept alive; another may get the id of a dead one.
        self._nodes: Dict[int, Tuple[ReferenceType, fx.Node]] = {}
        self._constants: Dict[int, Tuple[Tensor, fx.Node]] = {}
        self._running: List[str] = []
        self._within_leaf = False
        if not isinstance(image, ExampleInputs):
            self._learn(image, self.graph.placeholder('inputs'))
            return
        for index, tensor in enumerate(image.tensors):
            node = self.graph.placeholder(f'input_{index}')
            node.meta[INPUT] = index
            self._learn(tensor, node)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._within_leaf or not self._is_known((args, kwargs)):
            return result
        if func.__name__ == '__setitem__':
            self._add('call_function', written, args, kwargs, args[0])
        elif holds_tensor(result):
            operation, target = _target(func)
            if isinstance(func, MethodWrapperType):  # a property's getter
                args = (*args[:1], target)
                target = getattr
            self._add(operation, target, args, kwargs, result)
        return result

    def call(
        self,
        name: str,
        leaf: bool,
        forward: Callable[..., Any],
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
    ) -> Any:
        """Run a module and write it down if it is not looked into."""
        if not leaf or self._within_leaf:
            self._running.append(name)
            try:
                return forward(*args, **kwargs)
            finally:
                self._running.pop()
        self._within_leaf = True
        try:
            arguments = self._arguments((args, kwargs))
            result = forward(*args, **kwargs)
            self._write('call_module', name, arguments, result)
        finally:
            self._within_leaf = False
        return result

    def finish(self, outputs: Any) -> None:
        """Write down what the model gave."""
        tensors = [t for t in flatten_tensors(outputs) if self._is_known(t)]
        self.graph.output(tuple(map(self._node, tensors)))
        # Numbers that the code looked at are no output of the model.
        for node in reversed(self.graph.nodes):
            if node.op in ('call_function', 'call_method', 'get_attr'):
                if not node.users:
                    self.graph.erase_node(node)

    def _add(
        self, operation: str, target: Any, args: Any, kwargs: Any, result: Any
    ) -> None:
        """Write down a call of a function."""
        arguments = self._arguments((args, kwargs))
        self._write(operation, target, arguments, result)

    def _write(
        self, operation: str, target: Any, arguments: Any, result: Any
    ) -> None:
        args, kwargs = arguments
        node = self.graph.create_node(operation, target, args, kwargs)
        if self._running and self._running[-1]:
            node.meta['nn_module_stack'] = {self._running[-1]: None}
        self._learn(result, node)

    def _learn(self, result: Any, node: fx.Node) -> None:
        """Remember which node gave the tensors of a result."""
        node.meta[RECORDED] = tree_map(
            lambda v: as_shape(v) if isinstance(v, Tensor) else v, result
        )
        if isinstance(result, Tensor):
            self._nodes[id(result)] = (ref(result), node)
        elif isinstance(result, (tuple, list, dict)):
            keys = result if isinstance(result, dict) else range(len(result))
            for key in keys:
                if holds_tensor(result[key]):
                    part = self.graph.call_function(
                        operator.getitem, (node, key)
                    )
                    self._learn(result[key], part)

    def _is_known(self, values: Any) -> bool:
        """Whether a tensor of the model is among some values."""
        found = False

        def look(value: Any) -> None:
            nonlocal found
            if isinstance(value, Tensor):
                given = self._nodes.get(id(value))
                own = id(value) in self._own
                found |= own or (given is not None and given[0]() is value)

        tree_map(look, values)
        return found

    def _arguments(self, values: Any) -> Any:
        """Values with nodes in place of tensors."""
        return fx.node.map_aggregate(
            values, lambda v: self._node(v) if isinstance(v, Tensor) else v
        )

    def _node(self, tensor: Tensor) -> fx.Node:
        """The node that gave a tensor; its own where none did."""
        given = self._nodes.get(id(tensor))
        if given is not None and given[0]() is tensor:
            return given[1]
        if id(tensor) in self._own:
            node = self.graph.get_attr(self._own[id(tensor)])
            self._nodes[id(tensor)] = (ref(tensor), node)
            return node
        if id(tensor) not in self._constants:
            name = f'_recorded_{len(self._constants)}'
            self.graph.constants[name] = tensor
            # Kept alive by it, so that the id stays its own.
            node = self.graph.get_attr(name)
            self._constants[id(tensor)] = (tensor, node)
        return self._constants[id(tensor)][1]


def _target(func: Any) -> Tuple[str, Any]:
    """How a graph names one of torch's functions."""
    name = func.__name__
    if isinstance(func, MethodWrapperType):
        return 'call_function', func.__self__.__name__
    if name == '__getitem__':
        return 'call_function', operator.getitem
    if getattr(Tensor, name, None) is func:
        return 'call_method', name
    return 'call_function', func
