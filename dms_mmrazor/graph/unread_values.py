"""Values that a model computes and nobody reads.

mmrazor takes what nobody reads for an output of the model, whose channels
stay. What is only left lying, such as the last feature map of a network that
goes on with its class token alone, ties nothing to the outputs; what it joins
is tied as before, since the line still runs.
"""

from typing import Any, Set, Tuple

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten

from dms_mmrazor.graph.demo import (
    DemoInput,
    demo_tensor,
    evaluating,
    forward_tensors,
)
from dms_mmrazor.graph.light_copy import light_copy
from dms_mmrazor.graph.node_values import HAS_CHANNELS, SHAPE

_WRITERS = ('iadd', 'isub', 'imul', 'itruediv', 'setitem', 'written')
"""Names of functions that write to what they are given."""


def unread(value: Any) -> Any:
    """Stands in a trace for who would read a value that nobody reads."""
    return value


def read_unread(trace: fx.Graph, model: nn.Module, demo: DemoInput) -> None:
    """Let values that nobody reads be read by :func:`unread`, in place.

    Not those that the model remembers in an attribute, from where anybody
    may take them.

    Args:
        trace (fx.Graph): Annotated.
        model (nn.Module): The traced model.
        demo (tuple | ExampleInputs): What it is called with.
    """
    found = [
        node
        for node in trace.nodes
        if not node.users and node.meta.get(HAS_CHANNELS) and _is_pure(node)
    ]
    if not found:
        return
    kept = _remembered_shapes(model, demo)
    for node in found:
        if node.meta[SHAPE] in kept:
            continue
        with trace.inserting_after(node):
            reader = trace.call_function(unread, (node,))
        reader.meta.update({HAS_CHANNELS: True, SHAPE: node.meta[SHAPE]})


def _is_pure(node: fx.Node) -> bool:
    """Whether a node only computes a value."""
    if node.op == 'call_module':
        # What a layer gives may be read in training, as of a decoder's last.
        module = node.graph.owning_module.get_submodule(node.target)
        weights = any(True for _ in module.parameters())
        return not (weights or getattr(module, 'inplace', False))
    if node.op not in ('call_function', 'call_method'):
        return False
    name = getattr(node.target, '__name__', node.target)
    writes = str(name).endswith('_') or name in _WRITERS
    return not (writes or 'out' in node.kwargs or node.kwargs.get('inplace'))


@torch.no_grad()
def _remembered_shapes(
    model: nn.Module, demo: DemoInput
) -> Set[Tuple[int, ...]]:
    """Shapes of what a model's modules have in attributes after a pass."""
    copy = light_copy(model)
    with evaluating(copy), torch.random.fork_rng():
        forward_tensors(copy, demo_tensor(copy, demo))
    shapes = set()
    for module in copy.modules():
        known = ('_parameters', '_buffers', '_modules')
        own = [v for k, v in module.__dict__.items() if k not in known]
        tensors = [v for v in tree_flatten(own)[0] if isinstance(v, Tensor)]
        shapes.update(tuple(tensor.shape) for tensor in tensors)
    return shapes
