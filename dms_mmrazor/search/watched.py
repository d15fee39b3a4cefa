"""What a search watches in a network, and what it tells of each element."""

import functools
import math
from typing import Any, Dict, List, NamedTuple, Optional, Protocol, Tuple

import torch
from torch import Tensor, nn

from dms_mmrazor.core import KeepsPrecision
from dms_mmrazor.core.redundancy import (
    covariance_of,
    remaining_variance,
    sums_of,
    unexplained_variance,
)
from dms_mmrazor.graph.residual_block import ResidualBlock
from dms_mmrazor.layers import DMSOp
from dms_mmrazor.layers.attention_masks import QueryMask
from dms_mmrazor.layers.kind import LayerKind, channels_of, kind_of
from dms_mmrazor.models.units import DMSDepthUnit

DECAY = 0.9
"""Of the sums, from one measurement to the next: 0.99 a step."""

ROWS = 2048
"""Samples (positions of images) of a measurement at most."""

BLOCK = 512
"""Channels that are compared with each other at most, of wide layers a part:
the statistics of a layer take its width times this."""


class Source(Protocol):
    """Features that pass a module, and the elements that they tell of.

    Attributes:
        module (nn.Module): Of the supernet.
        index (Tensor): Where the masks of the elements are, as of
            :class:`Places`, [F, k].
    """

    module: nn.Module
    index: Tensor

    def shape(self) -> Tuple[int, int]:
        """Number of blocks that are compared apart, and of their channels."""

    def features(
        self, inputs: Tuple[Any, ...], output: Any
    ) -> Optional[Tensor]:
        """Some samples [n, channels] of a pass; None: not to be had."""

    def mask(self) -> Optional[Tensor]:
        """Masks of the channels; None: all are there."""

    def portions(self, covariance: Tensor, rows: Tensor) -> Tensor:
        """What is irreplaceable of each element, NaN: not known, [F, k]."""


class Sums(KeepsPrecision):
    """Sums over what has passed, the old ones less and less.

    Attributes:
        source (Source): What is watched; a plain object, so that the module
            is registered in its supernet alone.

    Args:
        source (Source): What is watched.
    """

    products: Tensor
    totals: Tensor
    rows: Tensor

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        blocks, size = source.shape()
        self.register_buffer('products', torch.zeros(blocks, size, size))
        self.register_buffer('totals', torch.zeros(blocks, size))
        self.register_buffer('rows', torch.tensor(0.0))

    def see(self, inputs: Tuple[Any, ...], output: Any) -> bool:
        """Forget a little, and add a pass; False if it has no features."""
        features = self.source.features(inputs, output)
        if features is None:
            return False
        blocks, size = self.totals.shape
        new = sums_of(features.float(), size, blocks)
        for old, more in zip((self.products, self.totals, self.rows), new):
            old.mul_(DECAY).add_(more)
        return True

    def portions(self) -> Tensor:
        """What is irreplaceable of each element, NaN: not known, [F, k]."""
        blocks, size = self.totals.shape
        mask = self.source.mask()
        if mask is not None:
            mask = mask.detach().flatten().to(self.totals)
            missing = blocks * size - len(mask)
            mask = nn.functional.pad(mask, (0, missing)).view(blocks, size)
        covariance = covariance_of(self.products, self.totals, self.rows, mask)
        return self.source.portions(covariance, self.rows)


class LayerInputs(NamedTuple):
    """What a layer reads that mixes searched channels.

    Wide layers are cut into blocks of at most :data:`BLOCK` channels.

    Attributes:
        module (DMSOp): The layer.
        kind (LayerKind): What it is.
        index (Tensor): Of the masks of its k inputs, [F, k].
        groups (tuple[int]): For each of the F rows, how many channels in a
            row have one mask.
    """

    module: DMSOp
    kind: LayerKind
    index: Tensor
    groups: Tuple[int, ...]

    def shape(self) -> Tuple[int, int]:
        """Whole groups in each block."""
        number = self.index.shape[1]
        blocks = -(-number // BLOCK)
        unit = functools.reduce(_common_multiple, self.groups)
        return blocks, -(-number // (blocks * unit)) * unit

    def features(
        self, inputs: Tuple[Any, ...], output: Any
    ) -> Optional[Tensor]:
        """What it reads, [n, k]."""
        value = inputs[0] if inputs else None
        first = self.kind.channels_first(self.module)
        return _samples(value, self.index.shape[1], first)

    def mask(self) -> Optional[Tensor]:
        """Of its inputs."""
        return self.module.masks().inputs

    def portions(self, covariance: Tensor, rows: Tensor) -> Tensor:
        """What a regression on the other channels leaves."""
        number = self.index.shape[1]
        found: Dict[int, Tensor] = {}
        for group in set(self.groups):
            portion = remaining_variance(covariance, rows, group)
            found[group] = portion.reshape(-1)[:number]
        return torch.stack([found[group] for group in self.groups])


class QueriesAndKeys(NamedTuple):
    """The queries and keys that a layer gives to the heads of an attention.

    A head sums the products of its dims of q and k. Of the product of one
    dim the others restore what is linear in their queries, or in their keys:
    the product of what is left of both remains.

    Attributes:
        module (DMSOp): The layer that gives q, k and v.
        index (Tensor): Of the masks of the D dims, the same for all heads,
            [F, D].
        heads (int): Number H of heads.
        query (QueryMask): Their masks.
    """

    module: DMSOp
    index: Tensor
    heads: int
    query: QueryMask

    def shape(self) -> Tuple[int, int]:
        """Those of each head are compared with each other."""
        return 2 * self.heads, self.index.shape[1]

    def features(
        self, inputs: Tuple[Any, ...], output: Any
    ) -> Optional[Tensor]:
        """Queries and keys, [n, 2 · H · D]."""
        found = _samples(output, self.query.size, False)
        blocks, size = self.shape()
        return None if found is None else found[:, : blocks * size]

    def mask(self) -> Optional[Tensor]:
        """Of the dims, for the queries and for the keys of each head."""
        mask = self.query.mutable.mask
        return None if mask is None else mask.repeat(2 * self.heads)

    def portions(self, covariance: Tensor, rows: Tensor) -> Tensor:
        """Mean over heads of what is left of a product."""
        left = remaining_variance(covariance, rows)
        queries, keys = left.split(self.heads)
        return (queries * keys).mean(0).expand(len(self.index), -1)


class BlockChange(NamedTuple):
    """What a residual block makes of its input, beside it.

    Attributes:
        module (nn.Module): The block.
        index (Tensor): Of its depth mask, [1, 1].
        channels (int): Of its input and output.
        first (bool): Whether channels come behind the batch at its end, not
            last.
        reader (DMSOp, optional): A layer whose masks are those of the
            input's channels. Defaults to None, all are there.
    """

    module: nn.Module
    index: Tensor
    channels: int
    first: bool
    reader: Optional[DMSOp] = None

    def shape(self) -> Tuple[int, int]:
        """Inputs and as many changes, of wide ones a part with a part."""
        blocks = -(-2 * self.channels // BLOCK)
        return blocks, 2 * -(-self.channels // blocks)

    def features(
        self, inputs: Tuple[Any, ...], output: Any
    ) -> Optional[Tensor]:
        """Input x and change, [n, 2 · channels] in the order of blocks."""
        after = output[0] if isinstance(output, tuple) else output
        before = inputs[0] if inputs else None
        both = before, after
        if not all(isinstance(value, Tensor) for value in both):
            return None
        if before.shape != after.shape:
            return None
        first = self._is_first(before)
        x, z = (_samples(value, self.channels, first) for value in both)
        return None if x is None else self._in_blocks(x, z - x)

    def _is_first(self, x: Tensor) -> bool:
        """Where channels are: blocks move them to the end and back."""
        first, last = x.shape[1] == self.channels, x.shape[-1] == self.channels
        return first and (self.first or not last)

    def _in_blocks(self, x: Tensor, change: Tensor) -> Tensor:
        """[..., channels] twice → [..., blocks · size]."""
        blocks, size = self.shape()
        missing = blocks * size // 2 - self.channels
        parts = [
            nn.functional.pad(v, (0, missing)).unflatten(-1, (blocks, -1))
            for v in (x, change)
        ]
        return torch.cat(parts, -1).flatten(-2)

    def mask(self) -> Optional[Tensor]:
        """Of the stream, for the input and for the change."""
        mask = None if self.reader is None else self.reader.masks().inputs
        return None if mask is None else self._in_blocks(mask, mask)

    def portions(self, covariance: Tensor, rows: Tensor) -> Tensor:
        """What is not linear in the input."""
        return unexplained_variance(covariance, rows).view(1, 1)


def find_sources(
    supernet: nn.Module, stages: List[DMSDepthUnit]
) -> List[Source]:
    """All that tells of searched elements.

    Args:
        supernet (nn.Module): With its masks.
        stages (list[DMSDepthUnit]): Its stages.
    """
    found: List[Source] = []
    for layer in supernet.modules():
        if isinstance(layer, DMSOp):
            found += _inputs_of(layer) + _queries_of(layer)
    for stage in stages:
        places = stage.mutable_depth.places
        for number, block in enumerate(stage.stage.blocks):
            if places is not None:
                index = places.index[:, number : number + 1].cpu()
                found += _change_of(supernet, block, index)
    return found


def _inputs_of(layer: DMSOp) -> List[Source]:
    """What a layer reads, if it mixes all its channels."""
    kind = kind_of(layer)
    if kind is None or not kind.mixes or kind.groups(layer) > 1:
        return []
    container = layer.get_mutable_attr('in_channels')
    places = None if container is None else container.places
    if places is None:
        return []
    groups = tuple(_group(row) for row in places.index)
    return [LayerInputs(layer, kind, places.index.cpu(), groups)]


def _queries_of(layer: DMSOp) -> List[Source]:
    """What a layer gives to the heads of an attention: q and k."""
    query = layer.rows
    if not isinstance(query, QueryMask) or kind_of(layer) is None:
        return []
    places = query.mutable.places
    if places is None:
        return []
    if query.size < 2 * query.heads * places.index.shape[1]:
        return []  # another layer gives k
    return [QueriesAndKeys(layer, places.index.cpu(), query.heads, query)]


def _change_of(
    supernet: nn.Module, block: ResidualBlock, index: Tensor
) -> List[Source]:
    """What a block does, if the layer at its end tells its channels."""
    end = supernet.get_submodule(block.carrier)
    kind, module = kind_of(end), supernet.get_submodule(block.name)
    if kind is None:
        return []
    channels = channels_of(end, False)
    reader = next((m for m in module.modules() if _reads(m, channels)), None)
    first = kind.channels_first(end)
    return [BlockChange(module, index, channels, first, reader)]


def _reads(layer: nn.Module, channels: int) -> bool:
    """Whether a layer reads as many channels, some of them searched."""
    if not isinstance(layer, DMSOp) or not _inputs_of(layer):
        return False
    return channels_of(layer, True) == channels


def _common_multiple(one: int, other: int) -> int:
    return one * other // math.gcd(one, other)


def _group(row: Tensor) -> int:
    """Channels in a row that have one mask, if all groups are alike."""
    _, counts = row.unique_consecutive(return_counts=True)
    size = int(counts[0])
    alike = bool((counts == size).all()) and size < len(row)
    return size if alike else 1


def _samples(value: Any, channels: int, first: bool) -> Optional[Tensor]:
    """Some samples [n, channels] of a tensor; None: not to be had.

    Args:
        value (Any): What was passed.
        channels (int): How many it should have.
        first (bool): Whether they come behind the batch, not last.
    """
    if not isinstance(value, Tensor) or value.dim() < 2:
        return None
    value = value.detach()
    if first and value.dim() > 2:
        value = _some_positions(value.flatten(2)).movedim(1, -1)
    if value.shape[-1] != channels:
        return None
    value = value.reshape(-1, channels)
    step = max(len(value) // ROWS, 1)
    return value[::step][:ROWS]


def _some_positions(value: Tensor) -> Tensor:
    """As many positions of [B, C, P] as there are to be samples."""
    number = value.shape[2]
    step = min(max(len(value) * number // ROWS, 1), number)
    # Not a divisor of a row of the image: it would be one column of it.
    while math.gcd(step, number) > 1:
        step += 1
    return value[:, :, ::step]
