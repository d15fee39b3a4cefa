"""Which channels come out of a function that only moves numbers.

Or multiplies one half by the other, as gated linear units do. Splitting,
indexing, flattening and shuffling are not read, they are tried: on a tensor
whose entries are the numbers of their channels.
"""

import math
import operator
from types import FunctionType
from typing import Any, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

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


class Moved(NamedTuple):
    """Where the channels of a function's output come from.

    Attributes:
        sources (tuple[tuple[int, ...], ...]): For each channel of the output
            those of the input that it is made of.
        together (tuple[tuple[int, ...], ...]): Channels of the input that
            can be kept only together. Defaults to ().
        lost (bool): Whether the order is one that a search cannot follow.
            Defaults to False.
    """

    sources: Tuple[Tuple[int, ...], ...]
    together: Tuple[Tuple[int, ...], ...] = ()
    lost: bool = False


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
    except Exception:  # whatever a model's code may raise
        return False
    both = isinstance(moved, Tensor) and isinstance(again, Tensor)
    if not both or moved.dtype != numbers.dtype or not moved.numel():
        return False
    known = 0 <= int(moved.min()) and 0 < int(moved.max()) <= size
    padded = torch.cat([torch.zeros_like(others[:1]), others])
    return known and torch.equal(padded[moved], again)


def moved_channels(node: fx.Node, channels: int) -> Optional[Moved]:
    """Channels of the input that the channels of the output come from.

    Args:
        node (fx.Node): A node for which :func:`is_mover` holds.
        channels (int): Number of channels of its input.

    Returns:
        Moved, optional: ``None`` if every channel stays what it was, the
        output is a tuple of parts of any size, or the channels are in
        several dimensions for a while.
    """
    factor = _shuffled_pixels(node)
    if factor:
        return _gathered(channels, factor)
    if _gates(node, channels):
        half = channels // 2
        return Moved(tuple((c, c + half) for c in range(half)))
    parts = _equal_parts(node, channels)
    if parts:
        return _in_groups([*range(channels)], channels // parts, parts)
    output = try_on_numbers(node, channels)
    line = _line(output) if isinstance(output, Tensor) else None
    if line is None or line[1] == list(range(channels)):
        return None
    if _in_batch(line, channels):
        return None
    moved = _ordered(line[1], channels)
    if not moved.lost and _has_computed_bounds(node):
        return _cut_evenly(moved, line[1], channels)
    return moved


def _in_batch(line: Tuple[int, List[int]], channels: int) -> bool:
    """Whether channels are among the images for a while, [B * C * n, ...].

    No layer reads them there; what follows takes them out again.

    Args:
        line (tuple): As of :func:`_line`.
        channels (int): How many there are.
    """
    dim, numbers = line
    return (
        dim == 0
        and len(numbers) > channels
        and _repeats_all(numbers, channels)
    )


def _has_computed_bounds(node: fx.Node) -> bool:
    """Whether a node takes a part whose size follows from the tensor's."""
    source = node.args[0]
    if source.meta[SHAPE] is None:  # a part of a tuple
        node = source
    taking = (operator.getitem, torch.split, torch.narrow, 'split', 'narrow')
    return node.target in taking and len(node.all_input_nodes) > 1


def _cut_evenly(moved: Moved, numbers: List[int], channels: int) -> Moved:
    """Parts of a computed size: equal ones keep the same channels."""
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return moved
    size = math.gcd(math.gcd(numbers[0], len(numbers)), channels)
    even = _in_groups(numbers, size, channels // size)
    return moved._replace(together=even.together)


def _ordered(numbers: List[int], channels: int) -> Moved:
    """What becomes of channels in some order."""
    moved = Moved(tuple((number,) for number in numbers))
    if numbers == sorted(numbers) or _repeats_all(numbers, channels):
        return moved
    for groups in range(2, channels):
        size, rest = divmod(channels, groups)
        if rest:
            continue
        dealt = [i * size + j for j in range(size) for i in range(groups)]
        if numbers == dealt:
            # The code names the smaller number, that of the groups.
            if groups <= size:
                return _in_groups(numbers, size, groups)
            return _in_blocks(numbers, groups, size)
    return moved._replace(lost=True)


def _in_groups(numbers: List[int], size: int, groups: int) -> Moved:
    """Each group of contiguous channels keeps the same ones of them."""
    together = [
        tuple(group * size + index for group in range(groups))
        for index in range(size)
    ]
    return Moved(tuple((n,) for n in numbers), tuple(together))


def _in_blocks(numbers: List[int], blocks: int, size: int) -> Moved:
    """Blocks of contiguous channels stay together."""
    together = [
        tuple(range(block * size, (block + 1) * size))
        for block in range(blocks)
    ]
    return Moved(tuple((n,) for n in numbers), tuple(together))


def _gathered(channels: int, factor: int) -> Moved:
    """Several contiguous channels become one."""
    return Moved(
        tuple(
            tuple(range(first, first + factor))
            for first in range(0, channels, factor)
        )
    )


def _repeats_all(numbers: List[int], channels: int) -> bool:
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


def _shuffled_pixels(node: fx.Node) -> int:
    """How many channels a node makes pixels of one of; 0 for others."""
    module = called_module(node)
    if isinstance(module, nn.PixelShuffle):
        return module.upscale_factor**2
    if node.target is F.pixel_shuffle:
        args, kwargs = node.meta[ARGUMENTS]
        return (args[0] if args else kwargs['upscale_factor']) ** 2
    return 0


def _gates(node: fx.Node, channels: int) -> bool:
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


def _equal_parts(node: fx.Node, channels: int) -> int:
    """Into how many parts of a size that follows a node cuts the channels.

    A single size of a split stands in the code of some blocks, whose
    handlers let it follow.
    """
    keys = {
        'chunk': ('chunks', 'dim'),
        'split': ('split_size', 'dim'),
        torch.chunk: ('chunks', 'dim'),
        torch.split: ('split_size_or_sections', 'dim'),
    }.get(node.target)
    if keys is None:
        return 0
    args, kwargs = node.meta[ARGUMENTS]
    named = {**dict(zip(keys, args)), **kwargs}
    shape, number = node.args[0].meta[SHAPE], named[keys[0]]
    if shape is None or type(number) is not int or channels % number:
        return 0
    place = channels_dim(node.args[0], channels)
    if named.get('dim', 0) % len(shape) != place:
        return 0
    return number if keys[0] == 'chunks' else channels // number


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
    if _gates(node, channels):
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
        line = _line(value)
        if line is None or _in_batch(line, channels):
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


def _line(numbers: Tensor) -> Optional[Tuple[int, List[int]]]:
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
