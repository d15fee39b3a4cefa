"""What the other channels could replace, measured while a search runs."""

import functools
import math
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

from dms_mmrazor.core import FlatTopk, KeepsPrecision
from dms_mmrazor.core.redundancy import (
    covariance_of,
    remaining_variance,
    sums_of,
)
from dms_mmrazor.errors import DMSError
from dms_mmrazor.layers import DMSOp
from dms_mmrazor.layers.kind import LayerKind, kind_of

INTERVAL = 10
"""Steps from one measurement to the next: the step with one costs more, see
benchmarks/README.md."""

DECAY = 0.9
"""Of the sums, from one measurement to the next: 0.99 a step."""

ROWS = 2048
"""Samples (positions of images) of a measurement at most."""

BLOCK = 512
"""Channels that are compared with each other at most, of wide layers a part:
the statistics of a layer take its width times this."""


def _is_compiling() -> bool:
    """Whether this is being traced by ``torch.compile``."""
    compiler = getattr(torch, 'compiler', None)
    return compiler is not None and compiler.is_compiling()


class Reader(NamedTuple):
    """A layer that mixes searched channels.

    Attributes:
        layer (DMSOp): Of the supernet.
        kind (LayerKind): What it is.
        index (Tensor): Where the masks of its k inputs are, as of
            :class:`Places`, [F, k].
        groups (tuple[int]): For each of the F rows, how many channels in a
            row have one mask.
    """

    layer: DMSOp
    kind: LayerKind
    index: Tensor
    groups: Tuple[int, ...]


class Redundancy(KeepsPrecision):
    """Measures how much of each element no other one could replace.

    Every :data:`INTERVAL` steps it looks at what the layers of the supernet
    read, and adds that to sums that forget slowly; from them follows for each
    channel the portion of its variance that a linear function of the other
    channels leaves, see :func:`remaining_variance`. Channels that several
    layers read have the mean. What no linear layer reads (queries and keys
    of an attention, blocks) counts as the average element.

    Attributes:
        portion (Tensor): Of each element of the flat masks, in (0, 1], ones
            at the start, shape [C].

    Args:
        supernet (nn.Module): Prepared, with its masks.
        number (int): Number C of flat masks.

    Raises:
        DMSError: If no layer reads a searched channel.
    """

    portion: Tensor
    places: Tensor

    def __init__(self, supernet: nn.Module, number: int) -> None:
        super().__init__()
        self.sums = nn.ModuleList(map(Sums, _find_readers(supernet)))
        if not len(self.sums):
            raise DMSError(
                "`model.structure_step.signal='removal'`: no layer reads "
                'searched channels, so that nothing can be compared; use '
                "'importance'."
            )
        self.register_buffer('portion', torch.ones(number))
        # What is not searched adds to a place behind all others.
        places = torch.cat([s.reader.index.flatten() for s in self.sums])
        places = torch.where(places < 0, number, places)
        self.register_buffer('places', places, persistent=False)
        self.to(next(supernet.parameters()).device)
        self._step = 0
        self._handles: List[Any] = []
        self._seen = False

    def begin(self) -> None:
        """Watch the layers in this step, if it is time."""
        if self._step % INTERVAL or self._handles:
            return
        self._seen = False
        for sums in self.sums:
            watch = functools.partial(self._see, sums)
            layer = sums.reader.layer
            self._handles.append(layer.register_forward_pre_hook(watch))

    @torch.no_grad()
    def finish(self, topk: FlatTopk) -> None:
        """Stop watching, and compute what follows.

        Args:
            topk (FlatTopk): The operators, whose importances weigh the
                average over elements.

        Raises:
            DMSError: If no layer was seen that should have been.
        """
        self._step += 1
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if not self._seen:
            raise DMSError(
                "`model.structure_step.signal='removal'` watches what layers "
                'read, and saw nothing: a compiled model cannot be watched. '
                "Use signal='importance', or do not compile the search."
            )
        importance = topk.layout.to_channels(topk.importance)
        self.portion.copy_(self._average(importance))

    @torch.no_grad()
    def _see(
        self, sums: 'Sums', layer: nn.Module, inputs: Tuple[Any, ...]
    ) -> None:
        """Add what a layer reads, as torch calls a forward hook."""
        if _is_compiling():
            return  # what is traced once would be done in every step
        features = _features(sums.reader, inputs)
        if features is not None:
            sums.add(features)
            self._seen = True

    def _average(self, importance: Tensor) -> Tensor:
        """Portions of all elements, of those that nobody saw the mean."""
        found = [row for sums in self.sums for row in sums.portions()]
        values = torch.cat(found)
        total = values.new_zeros(len(self.portion) + 1)
        count = total.index_add(0, self.places, torch.ones_like(values))[:-1]
        total = total.index_add(0, self.places, values)[:-1]
        seen = count > 0
        mean = total / count.clamp(min=1)
        weight = torch.where(seen, importance, torch.zeros_like(importance))
        usual = (weight * mean).sum() / weight.sum().clamp(min=1e-30)
        usual = torch.where(weight.sum() > 0, usual, torch.ones_like(usual))
        return torch.where(seen, mean, usual)

    def get_extra_state(self) -> Tensor:
        """Steps so far, known to the host: which ones measure is."""
        return torch.tensor(self._step)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on with the steps of a checkpoint."""
        self._step = int(state)


class Sums(KeepsPrecision):
    """Sums over what one layer has read, the old ones less and less.

    Wide layers are cut into blocks of at most :data:`BLOCK` channels.

    Attributes:
        reader (Reader): The layer; in a tuple, so that it is registered in
            its supernet alone.

    Args:
        reader (Reader): The layer.
    """

    products: Tensor
    totals: Tensor
    rows: Tensor

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader
        number = reader.index.shape[1]
        blocks = -(-number // BLOCK)
        unit = functools.reduce(_common_multiple, reader.groups)
        size = -(-number // (blocks * unit)) * unit
        self.register_buffer('products', torch.zeros(blocks, size, size))
        self.register_buffer('totals', torch.zeros(blocks, size))
        self.register_buffer('rows', torch.tensor(0.0))

    def add(self, features: Tensor) -> None:
        """Forget a little, and add samples [n, k]."""
        blocks, size = self.totals.shape
        new = sums_of(features, size, blocks)
        for old, more in zip((self.products, self.totals, self.rows), new):
            old.mul_(DECAY).add_(more)

    def portions(self) -> List[Tensor]:
        """For each of the F rows of masks the portions [k]."""
        reader = self.reader
        number = reader.index.shape[1]
        mask = reader.layer.masks().inputs
        blocks, size = self.totals.shape
        if mask is not None:
            mask = mask.detach().to(self.totals)
            mask = torch.nn.functional.pad(mask, (0, blocks * size - number))
            mask = mask.view(blocks, size)
        covariance = covariance_of(self.products, self.totals, self.rows, mask)
        found: Dict[int, Tensor] = {}
        for group in set(reader.groups):
            portion = remaining_variance(covariance, self.rows, group)
            found[group] = portion.reshape(-1)[:number]
        return [found[group] for group in reader.groups]


def _find_readers(supernet: nn.Module) -> List[Reader]:
    """Layers that mix all channels that they read, some of them searched."""
    found = []
    for layer in supernet.modules():
        kind = kind_of(layer) if isinstance(layer, DMSOp) else None
        if kind is None or not kind.mixes or kind.groups(layer) > 1:
            continue
        container = layer.get_mutable_attr('in_channels')
        places = None if container is None else container.places
        if places is not None:
            groups = tuple(_group(row) for row in places.index)
            found.append(Reader(layer, kind, places.index.cpu(), groups))
    return found


def _common_multiple(one: int, other: int) -> int:
    return one * other // math.gcd(one, other)


def _group(row: Tensor) -> int:
    """Channels in a row that have one mask, if all groups are alike."""
    _, counts = row.unique_consecutive(return_counts=True)
    size = int(counts[0])
    alike = bool((counts == size).all()) and size < len(row)
    return size if alike else 1


def _features(reader: Reader, inputs: Tuple[Any, ...]) -> Optional[Tensor]:
    """Some samples [n, k] of what a layer reads; None: not to be had."""
    number = reader.index.shape[1]
    value = inputs[0] if inputs else None
    if not isinstance(value, Tensor) or value.dim() < 2:
        return None
    value = value.detach()
    if reader.kind.channels_first(reader.layer) and value.dim() > 2:
        value = _some_positions(value.flatten(2)).movedim(1, -1)
    if value.shape[-1] != number:
        return None
    value = value.reshape(-1, number)
    step = max(len(value) // ROWS, 1)
    return value[::step][:ROWS].float()


def _some_positions(value: Tensor) -> Tensor:
    """As many positions of [B, C, P] as there are to be samples."""
    number = value.shape[2]
    step = min(max(len(value) * number // ROWS, 1), number)
    # Not a divisor of a row of the image: it would be one column of it.
    while math.gcd(step, number) > 1:
        step += 1
    return value[:, :, ::step]
