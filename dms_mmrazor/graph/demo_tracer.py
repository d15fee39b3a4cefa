"""A tracer that knows what the model computes for a demo input.

A symbolic trace stops where the code asks a value: an assertion about sizes,
padding where it is needed, a position embedding that is resized unless it
fits. For the shape that the model will be used with, the demo input answers.
Conditions on the values of tensors stay what a trace cannot follow.
"""

import math
import operator
from itertools import islice
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

from mmrazor.models.task_modules.tracer.fx_tracer import MMFxTracer
from torch import Tensor, fx, nn
from torch.fx.proxy import Attribute

from dms_mmrazor.graph.node_values import (
    UNKNOWN,
    NodeRunner,
    ShapeRunner,
    Values,
)
from dms_mmrazor.layers.channel_holder import is_vector

Question = Callable[[Any], int]


_CONTAINERS = (
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
)
"""Modules of torch that are made of searchable ones."""


def _is_shape(node: fx.Node) -> bool:
    """Whether a node gives the sizes of all dimensions of a tensor."""
    if node.target is getattr:
        return node.args[1] == 'shape'
    return node.target == 'size' and len(node.args) == 1


class SizedProxy(fx.Proxy):
    """A traced value whose length the demo input tells: ``list(x)`` asks."""

    def __len__(self) -> int:
        value = self.tracer.value_of(self.node)
        if isinstance(value, (Tensor, tuple, list)):
            return self.tracer.answer(self.node, len)
        return super().__len__()

    # Functions of `math` ask their argument for these.

    def __ceil__(self) -> fx.Proxy:
        return self.tracer.create_proxy(
            'call_function', math.ceil, (self,), {}
        )

    def __floor__(self) -> fx.Proxy:
        return self.tracer.create_proxy(
            'call_function', math.floor, (self,), {}
        )

    def __getattr__(self, name: str) -> Any:
        """A device has a kind, of which contexts of autocast insist on one."""
        if name == 'device':
            return PlaceProxy(self, name)
        return super().__getattr__(name)


class PlaceProxy(Attribute):
    """The device of a traced tensor."""

    def __getattr__(self, name: str) -> Any:
        """Its kind, a plain text."""
        if name == 'type':
            return self.tracer.device.type
        return super().__getattr__(name)


class DemoTracer(MMFxTracer):
    """mmrazor's tracer; conditions are decided by a demo input.

    Args:
        model (nn.Module): The model that will be traced, in evaluation mode.
        image (Tensor | ExampleInputs): The demo input.
        opaque (Sequence[str]): Names of modules that it does not look into.
            Defaults to ().
        **kwargs: Passed to mmrazor's ``MMFxTracer``.
    """

    def __init__(
        self,
        model: nn.Module,
        image: Any,
        opaque: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._opaque = tuple(opaque)
        self.device = image.device
        # Where shapes do not tell, the model is run.
        self._shapes = ShapeRunner(model, image)
        runners = (self._shapes, NodeRunner(model, image))
        self._found: List[Tuple[NodeRunner, Values]] = [
            (runner, {}) for runner in runners
        ]
        self._answers: List[Tuple[fx.Node, Question, int]] = []
        self._running = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether the trace does not look into a module."""
        if module_qualified_name in self._opaque:
            return True
        if type(m) in _CONTAINERS:
            return False
        return super().is_leaf_module(m, module_qualified_name)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Value of a condition on sizes; one on pixels is an error."""
        value = self.value_of(obj.node)
        if value is UNKNOWN or isinstance(value, Tensor):
            return super().to_bool(obj)
        return bool(self.answer(obj.node, bool))

    def iter(self, obj: fx.Proxy) -> Iterator[fx.Proxy]:
        """Parts of a tuple; a feature map has no parts to be followed."""
        value = self.value_of(obj.node)
        if not isinstance(value, (tuple, list)):
            return super().iter(obj)
        length = self.answer(obj.node, len)
        return iter([obj[index] for index in range(length)])

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """The traced value of a node."""
        return SizedProxy(node, self)

    def value_of(self, node: fx.Node) -> Any:
        """Value of a node for the demo input.

        All nodes up to it that have not been run yet are run.
        """
        running, self._running = self._running, True
        try:
            for runner, values in self._found:
                for other in islice(self.graph.nodes, len(values), None):
                    values[other] = runner.value(other, values)
                if values[node] is not UNKNOWN:
                    return values[node]
        finally:
            self._running = running
        return UNKNOWN

    def answer(self, node: fx.Node, question: Question) -> int:
        """What the code is told of a node's value, and remember it.

        Args:
            node (fx.Node): A node whose value is known.
            question (Callable): ``bool`` or ``len``.
        """
        found = question(self.value_of(node))
        self._answers.append((node, question, found))
        return found

    def decides_alike(self, image: Tensor) -> bool:
        """Whether the trace would be the same for another input.

        It is if every question of the code has the same answer.

        Args:
            image (Tensor): The other input.
        """
        runner, values = self._shapes.with_image(image), {}
        for node in self.graph.nodes:
            values[node] = runner.value(node, values)
        return all(
            values[node] is not UNKNOWN and question(values[node]) == found
            for node, question, found in self._answers
        )

    def asks_for_widths(self) -> bool:
        """Whether a condition of the code may be one on channel numbers."""
        return any(
            question is bool and self._asks_for_width(node)
            for node, question, _ in self._answers
        )

    def _asks_for_width(self, node: fx.Node) -> bool:
        """Whether a value is made of the size of a dimension of channels."""
        for source in node.all_input_nodes:
            if isinstance(self.value_of(source), Tensor):
                dims = node.args[1:] if node.target == 'size' else ()
                read = source
            elif _is_shape(source):
                is_item = node.target is operator.getitem
                dims = node.args[1:] if is_item else ()
                read = source.args[0]
            elif self._asks_for_width(source):
                return True
            else:
                continue
            if _is_shape(node):
                continue  # who reads it says which dimension
            rank = self.value_of(read).dim()
            width = 1 if rank > 3 else rank - 1
            whole = not all(isinstance(dim, int) for dim in dims) or not dims
            if whole or any(dim % rank == width for dim in dims):
                return True
        return False

    # While nodes are run, modules must compute instead of being recorded.

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: Tuple[Any, ...],
        kwargs: Dict[str, Any],
    ) -> Any:
        """Record a call of a module; one made on the spot is looked into."""
        if self._running or self._is_made_on_the_spot(m):
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def _is_made_on_the_spot(self, module: nn.Module) -> bool:
        """Whether code makes it where it is called, as ``nn.ReLU()(x)``."""
        try:
            self.path_of_module(module)
        except NameError:
            return next(module.parameters(), None) is None
        return False

    def getattr(
        self, attr: str, attr_val: Any, parameter_proxy_cache: Dict[str, Any]
    ) -> Any:
        """Record the use of a parameter, or of a vector in a buffer."""
        if self._running:
            return attr_val
        self._record_vectors(attr_val)
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def _module_getattr(
        self, attr: str, attr_val: Any, parameter_proxy_cache: Dict[str, Any]
    ) -> Any:
        """As ``getattr``, by its name in torch < 1.13."""
        if self._running:
            return attr_val
        self._record_vectors(attr_val)
        return super()._module_getattr(attr, attr_val, parameter_proxy_cache)

    def _record_vectors(self, value: Any) -> None:
        """Let torch's tracer record a buffer of numbers for each channel.

        Others, such as tables of positions, may decide what the code does.
        """
        vector = isinstance(value, Tensor) and is_vector(value)
        self.proxy_buffer_attributes = vector
