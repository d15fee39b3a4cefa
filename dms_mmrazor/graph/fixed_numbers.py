"""Numbers of channels that stand in a model's own code.

``x.view(-1, 256)`` or ``x[:, :16]`` ask for the same numbers of a narrower
model. A trace with symbols tells them from sizes that the code takes from a
tensor. What a block's handler lets follow does not count.
"""

from typing import Any, List, Tuple

import torch
from torch import Tensor, fx

from dms_mmrazor.graph.channel_places import try_on_numbers
from dms_mmrazor.graph.node_values import RECORDED, SHAPE
from dms_mmrazor.layers.block import BlockKind, block_kind_of

_STACK = 'nn_module_stack'
_VIEWS = ('view', 'reshape', torch.reshape)
_PARTS = ('split', torch.split, 'narrow', torch.narrow)


def fixed_in_code(node: fx.Node, channels: int) -> bool:
    """Whether a node asks for numbers of channels that its code names.

    Args:
        node (fx.Node): It moves the numbers of a tensor with channels.
        channels (int): Number of channels of its input.
    """
    source = node.args[0]
    if RECORDED in node.meta or source.meta[SHAPE] is None:
        return False
    if _is_handled(node):
        return False
    if node.target in _VIEWS:
        return _fixes_view(node, channels)
    if node.target in _PARTS or _is_slice(node):
        return len(node.all_input_nodes) == 1 and _takes(node, channels)
    return False


def _is_handled(node: fx.Node) -> bool:
    """Whether a handler sets numbers that its code reads, or may do so."""
    graph, model = node.graph, node.graph.owning_module
    if not any(other.meta.get(_STACK) for other in graph.nodes):
        return True  # torch < 2.0 does not tell whose code it is
    owners = map(model.get_submodule, node.meta.get(_STACK) or {})
    kinds = [kind for kind in map(block_kind_of, [model, *owners]) if kind]
    return any(type(kind).refresh is not BlockKind.refresh for kind in kinds)


def _fixes_view(node: fx.Node, channels: int) -> bool:
    """Whether all dimensions in which channels are have their sizes."""
    sizes: Tuple[Any, ...] = tuple(node.args[1:])
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    numbers = try_on_numbers(node, channels)
    if not isinstance(numbers, Tensor) or numbers.dim() != len(sizes):
        return False
    dims = _varying(numbers)
    return bool(dims) and all(
        type(sizes[dim]) is int and sizes[dim] > 0 for dim in dims
    )


def _is_slice(node: fx.Node) -> bool:
    return getattr(node.target, '__name__', '') == 'getitem'


def _takes(node: fx.Node, channels: int) -> bool:
    """Whether it takes a part of the channels."""
    given = try_on_numbers(node, channels)
    parts = [given] if isinstance(given, Tensor) else given
    if not isinstance(parts, (list, tuple)):
        return False
    return any(0 < len(part.unique()) < channels for part in parts)


def _varying(numbers: Tensor) -> List[int]:
    """Dimensions in which numbers of channels differ."""
    return [
        dim
        for dim in range(numbers.dim())
        if not torch.equal(numbers.amax(dim), numbers.amin(dim))
    ]
