"""Which channels come out of a function that only moves numbers.

Splitting, indexing and flattening are not read, they are tried: on a tensor
whose entries are the numbers of their channels.
"""

import operator
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor, fx

from dms_mmrazor.models.tracing.fx_values import ARGUMENTS, SHAPE

_FUNCTIONS = (
    operator.getitem,
    torch.chunk,
    torch.flatten,
    torch.narrow,
    torch.reshape,
    torch.split,
    torch.tensor_split,
)
_METHODS = (
    'chunk',
    'flatten',
    'narrow',
    'reshape',
    'split',
    'tensor_split',
    'view',
)


def is_mover(node: fx.Node) -> bool:
    """Whether a node selects or repeats entries of its first argument."""
    if node.meta.get(ARGUMENTS) is None or not node.all_input_nodes:
        return False
    if node.op == 'call_function':
        return node.target in _FUNCTIONS
    return node.op == 'call_method' and node.target in _METHODS


def moved_channels(node: fx.Node, channels: int) -> Optional[List[int]]:
    """Channels of the input that the channels of the output come from.

    Args:
        node (fx.Node): A node for which :func:`is_mover` holds.
        channels (int): Number of channels of its input.

    Returns:
        list[int], optional: One number for each channel of the output, in
        ascending order; ``None`` if every channel stays what it was, the
        output is a tuple of parts, or the channels end up in an order or
        in several dimensions that a search cannot follow.
    """
    output = _try(node, channels)
    if not isinstance(output, Tensor):
        return None
    numbers = _along_one_dim(output)
    if numbers is None or numbers == list(range(channels)):
        return None
    return numbers if numbers == sorted(numbers) else None


def _try(node: fx.Node, channels: int) -> Any:
    """Run a node on the numbers of the channels."""
    source = node.args[0]
    if source.meta[SHAPE] is None:
        # A tuple; only what splits a tensor is known to make one.
        value = _try(source, channels) if is_mover(source) else None
    else:
        value = _numbered(source.meta[SHAPE], channels)
    if value is None:
        return None
    args, kwargs = node.meta[ARGUMENTS]
    if node.op == 'call_method':
        # The numbers repeat one line of memory, which cannot be viewed.
        name = 'reshape' if node.target == 'view' else node.target
        return getattr(value, name)(*args, **kwargs)
    return node.target(value, *args, **kwargs)


def _numbered(shape: Tuple[int, ...], channels: int) -> Optional[Tensor]:
    """A tensor of a shape, filled with the numbers of its channels."""
    dims = [dim for dim, size in enumerate(shape) if size == channels]
    if not dims or channels == 1:
        return None
    first = len(shape) == 4 and 1 in dims
    dim = 1 if first else dims[-1]
    view = [channels if d == dim else 1 for d in range(len(shape))]
    return torch.arange(channels).view(view).expand(shape)


def _along_one_dim(numbers: Tensor) -> Optional[List[int]]:
    """The numbers along the only dimension in which they differ."""
    if numbers.numel() == 0:
        return None
    first = numbers.flatten()[0]
    if bool((numbers == first).all()):
        return [int(first)]
    for dim in range(numbers.dim()):
        line = numbers.transpose(0, dim).flatten(1)[:, 0]
        view = [-1 if d == dim else 1 for d in range(numbers.dim())]
        if torch.equal(line.view(view).expand_as(numbers), numbers):
            return line.tolist()
    return None
