"""Which channels come out of a function that only moves numbers.

Or multiplies one half by the other, as gated linear units do.
"""

import math
import operator
from typing import List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dms_mmrazor.graph.channel_places import (
    channels_dim,
    in_batch,
    is_gate,
    line_of,
    repeats_all,
    try_on_numbers,
)
from dms_mmrazor.graph.node_values import (
    ARGUMENTS,
    SHAPE,
    called_module,
)

_VIEWS = (
    *('view', 'reshape', 'unflatten'),
    *(torch.reshape, torch.unflatten),
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
    factor = _shuffled_pixels(node) or _positions(node, channels)
    if factor:
        return _gathered(channels, factor)
    if is_gate(node, channels):
        half = channels // 2
        return Moved(tuple((c, c + half) for c in range(half)))
    parts = _equal_parts(node, channels)
    if parts:
        return _in_groups([*range(channels)], channels // parts, parts)
    output = try_on_numbers(node, channels)
    line = line_of(output) if isinstance(output, Tensor) else None
    if line is None or line[1] == list(range(channels)):
        return None
    if in_batch(line, channels):
        return None
    moved = _ordered(line[1], channels)
    if not moved.lost and _has_computed_bounds(node):
        return _cut_evenly(moved, line[1], channels)
    return moved


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
    if numbers == sorted(numbers) or repeats_all(numbers, channels):
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


def _shuffled_pixels(node: fx.Node) -> int:
    """How many channels a node makes pixels of one of; 0 for others."""
    module = called_module(node)
    if isinstance(module, nn.PixelShuffle):
        return module.upscale_factor**2
    if node.target is F.pixel_shuffle:
        args, kwargs = node.meta[ARGUMENTS]
        return (args[0] if args else kwargs['upscale_factor']) ** 2
    return 0


def _positions(node: fx.Node, channels: int) -> int:
    """Positions of a map that a node makes of a vector; 0 for others.

    As generators and decoders do: ``x.view(len(x), -1, 4, 4)``.
    """
    known = node.target in _VIEWS or isinstance(
        called_module(node), nn.Unflatten
    )
    read, given = node.args[0].meta[SHAPE], node.meta[SHAPE]
    if not known or read is None or given is None:
        return 0
    if len(read) != 2 or len(given) < 4 or read[1] != channels:
        return 0
    number = math.prod(given[2:])
    return number if number > 1 and given[1] * number == channels else 0


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
