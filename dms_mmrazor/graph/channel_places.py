"""In which dimension of a tensor the channels are, and which is where.

Splitting, indexing, flattening and shuffling are not read, they are tried: on
a tensor whose entries are the numbers of their channels.
"""

import operator
from types import FunctionType
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dms_mmrazor.errors import raise_device_error
from dms_mmrazor.graph.node_values import (
    ARGUMENTS,
    SHAPE,
    called_module,
)
from dms_mmrazor.layers import is_layer, kind_of

_MOST_RUNS = 256
"""How often the channels may follow one another in a flattened tensor."""

OVER_POSITIONS = 'dms_over_positions'
"""True for a linear layer that mixes the positions of each channel."""

MOVES = 'dms_moves'
"""Whether a function of a model's own code moves numbers, once known."""

_FUNCTIONS = (
    operator.getitem,
    torch.channel_shuffle,
    torch.chunk,
    torch.flatten,
    torch.flip,
    torch.movedim,
    torch.narrow,
    torch.permute,
    torch.repeat_interleave,
    torch.reshape,
    torch.roll,
    torch.split,
    torch.swapaxes,
    torch.tensor_split,
    torch.tile,
    torch.transpose,
    F.glu,
    F.pixel_shuffle,
    F.pixel_unshuffle,
)
_METHODS = (
    'chunk',
    'contiguous',
    'flatten',
    'flip',
    'movedim',
    'narrow',
    'permute',
    'repeat',
    'repeat_interleave',
    'reshape',
    'roll',
    'split',
    'swapaxes',
    'tensor_split',
    'tile',
    'transpose',
    'unflatten',
    'view',
)
_MODULES = (
    nn.ChannelShuffle,
    nn.Flatten,
    nn.GLU,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.Unflatten,
)


def is_mover(node: fx.Node) -> bool:
    """Whether a node selects, repeats or orders entries of its argument."""
    if node.meta.get(ARGUMENTS) is None or not node.all_input_nodes:
        return False
    if node.op == 'call_function':
        return node.target in _FUNCTIONS or _moves_numbers(node)
    if node.op == 'call_module':
        return isinstance(called_module(node), _MODULES)
    return node.op == 'call_method' and node.target in _METHODS


def _moves_numbers(node: fx.Node) -> bool:
    """Whether a function of the model's own code only moves numbers.

    A trace need not look into it; what it moves comes out the same whatever
    the numbers are. It may pad with zeros.
    """
    if MOVES not in node.meta:
        node.meta[MOVES] = _is_mover_of_any(node)
    return node.meta[MOVES]


def _is_mover_of_any(node: fx.Node) -> bool:
    shape = node.args[0].meta[SHAPE] if node.args else None
    own = isinstance(node.target, FunctionType)
    if not own or not shape:
        return False
    if node.target.__module__.partition('.')[0] == 'torch':
        return False
    args, kwargs = node.meta[ARGUMENTS]
    size = torch.Size(shape).numel()
    # From 1: what it pads with are zeros. Two orders tell a function that
    # moves numbers from one that sorts or selects by them.
    numbers = torch.arange(1, size + 1)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    others = numbers[order]
    try:
        moved = node.target(numbers.view(shape), *args, **kwargs)
        again = node.target(others.view(shape), *args, **kwargs)
    except Exception as error:  # whatever a model's code may raise
        raise_device_error(error)
        return False
    both = isinstance(moved, Tensor) and isinstance(again, Tensor)
    if not both or moved.dtype != numbers.dtype or not moved.numel():
        return False
    known = 0 <= int(moved.min()) and 0 < int(moved.max()) <= size
    padded = torch.cat([torch.zeros_like(others[:1]), others])
    return known and torch.equal(padded[moved], again)


def in_batch(line: Tuple[int, List[int]], channels: int) -> bool:
    """Whether channels are among the images for a while, [B * C * n, ...].

    No layer reads them there; what follows takes them out again.

    Args:
        line (tuple): As of :func:`line_of`.
        channels (int): How many there are.
    """
    dim, numbers = line
    return (
        dim == 0 and len(numbers) > channels and repeats_all(numbers, channels)
    )


def repeats_all(numbers: List[int], channels: int) -> bool:
    """Whether all channels follow one another again and again."""
    starts = [i for i, n in enumerate(numbers) if i == 0 or n < numbers[i - 1]]
    length = len(numbers) // len(starts)
    run = numbers[:length]
    each = length // channels
    return (
        len(starts) <= _MOST_RUNS
        and run == [c for c in range(channels) for _ in range(each)]
        and numbers == run * len(starts)
    )


def is_gate(node: fx.Node, channels: int) -> bool:
    """Whether a node multiplies half of the channels by the other half."""
    module = called_module(node)
    if not isinstance(module, nn.GLU) and node.target is not F.glu:
        return False
    args, kwargs = node.meta[ARGUMENTS]
    dim = {'dim': -1, **dict(zip(('dim',), args)), **kwargs}['dim']
    dim = dim if module is None else module.dim
    shape = node.args[0].meta[SHAPE]
    place = channels_dim(node.args[0], channels)
    return bool(shape) and dim % len(shape) == place


def channel_numbers(source: fx.Node, channels: int) -> Optional[Tensor]:
    """The channel of each number of a tensor; ``None``: nobody knows.

    Args:
        source (fx.Node): What gives the tensor.
        channels (int): How many there are.
    """
    value = try_on_numbers(source, channels) if is_mover(source) else None
    shape = source.meta[SHAPE]
    if isinstance(value, Tensor) and tuple(value.shape) == shape:
        if len(value.unique()) == channels:
            return value
    return None if shape is None else _renumbered(source, None, channels)


def try_on_numbers(node: fx.Node, channels: int) -> Any:
    """Run a mover on the numbers of the channels of its input."""
    if is_gate(node, channels):
        return None
    source = node.args[0]
    value = try_on_numbers(source, channels) if is_mover(source) else None
    if source.meta[SHAPE] is not None:
        value = _renumbered(source, value, channels)
    if value is None:
        return None
    args, kwargs = node.meta[ARGUMENTS]
    if node.op == 'call_method':
        # The numbers repeat one line of memory, which cannot be viewed.
        name = 'reshape' if node.target == 'view' else node.target
        return getattr(value, name)(*args, **kwargs)
    if node.op == 'call_module':
        return called_module(node)(value)
    if node.target not in _FUNCTIONS:  # the model's own, which may pad
        return _unpadded(node.target(value + 1, *args, **kwargs) - 1)
    return node.target(value, *args, **kwargs)


def _unpadded(numbers: Tensor) -> Optional[Tensor]:
    """Numbers where they differ in one dimension; padding, -1, has them too.

    ``None`` if padding stands for a channel.
    """
    if int(numbers.min()) >= 0:
        return numbers
    for dim in range(numbers.dim()):
        others = [d for d in range(numbers.dim()) if d != dim]
        line = numbers.amax(others, keepdim=True).expand_as(numbers)
        if torch.equal(numbers.where(numbers >= 0, line), line):
            return line if int(line.min()) >= 0 else None
    return None


def _renumbered(
    source: fx.Node, value: Any, channels: int
) -> Optional[Tensor]:
    """Numbers of the channels of a tensor.

    Where they are in several dimensions for a while, numbers of the tensor
    that they come from.
    """
    shape, dim = source.meta[SHAPE], None
    if isinstance(value, Tensor):
        line = line_of(value)
        if line is None or in_batch(line, channels):
            return value
        dim = line[0]
    if dim is None or shape[dim] != channels:
        dim = channels_dim(source, channels)
    if dim is None:
        return None
    view = [channels if d == dim else 1 for d in range(len(shape))]
    return torch.arange(channels).view(view).expand(shape)


def channels_dim(node: fx.Node, channels: int) -> Optional[int]:
    """The dimension of a tensor's channels.

    Args:
        node (fx.Node): What gives the tensor.
        channels (int): How many there are.
    """
    shape = node.meta[SHAPE]
    dims = [dim for dim, size in enumerate(shape) if size == channels]
    if not dims or channels == 1:
        return None
    first = 1 in dims and (len(shape) > 3 or _is_behind_conv(node))
    return 1 if first else dims[-1]


def _is_behind_conv(node: fx.Node) -> bool:
    """Whether the closest layer before a node puts channels first."""
    shape = node.meta[SHAPE]
    while isinstance(node, fx.Node) and node.meta.get(SHAPE) == shape:
        module = called_module(node)
        if node.meta.get(OVER_POSITIONS):
            return True
        if is_layer(module):
            return kind_of(module).channels_first(module)
        node = node.args[0] if node.args else None
    return False


def line_of(numbers: Tensor) -> Optional[Tuple[int, List[int]]]:
    """The only dimension in which numbers differ, and the numbers there."""
    if numbers.numel() == 0:
        return None
    for dim in range(numbers.dim()):
        line = numbers.movedim(dim, 0).reshape(numbers.shape[dim], -1)[:, 0]
        view = [-1 if d == dim else 1 for d in range(numbers.dim())]
        if torch.equal(line.view(view).expand_as(numbers), numbers):
            same = bool((line == line[0]).all())
            if not same or numbers.numel() == 1:
                return dim, line.tolist()
    first = numbers.flatten()[0]
    if bool((numbers == first).all()):
        return 0, [int(first)]
    return None
