"""Which units the channels of each part of a supernet belong to."""

from typing import Dict, List, Optional, Sequence, Tuple

from torch import nn

from dms_mmrazor.core import Dim
from dms_mmrazor.graph.channel_groups import POSITIONS
from dms_mmrazor.layers import (
    channels_of,
    is_norm,
    named_parts,
)
from dms_mmrazor.layers.block import block_kind_of, repeated_slice
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit

Product = Tuple[float, Tuple[Dim, ...]]
"""A coefficient times dimensions."""


class SearchedSides:
    """Which units the channels of each layer belong to.

    Args:
        model (nn.Module): The plain supernet.
        units (Sequence[DMSChannelUnit]): Its width units.
        stages (Sequence[DMSDepthUnit]): Its depth units.

    Attributes:
        modules (dict[str, nn.Module]): Modules by name.
        parts (dict[str, Part]): These and everything else with channels.
        sizes (list[int]): Channels of each unit.
        blocks (list[str]): Names of all removable blocks.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[DMSChannelUnit],
        stages: Sequence[DMSDepthUnit],
    ) -> None:
        self.modules = dict(model.named_modules())
        self.parts = named_parts(model)
        self.sizes = [unit.num_channels for unit in units]
        self.blocks = [name for s in stages for name in s.block_names]
        # (part, is input side) → [(unit, first channel, one after the last)]
        self._tied: Dict[Tuple[str, bool], List[Tuple[int, int, int]]] = {}
        for index, unit in enumerate(units):
            for channel in [*unit.output_related, *unit.input_related]:
                name = str(channel.name)
                if name in self.parts or name.startswith(POSITIONS):
                    key = (channel.name, not channel.is_output_channel)
                    tied = (index, channel.start, channel.end)
                    self._tied.setdefault(key, []).append(tied)
        # layer → its input channels that only a removable block gives
        self._repeats: Dict[str, List[Tuple[int, int, int]]] = {}
        for block, name in enumerate(self.blocks):
            repeated = repeated_slice(model, name)
            if repeated is not None:
                layer, start, end = repeated
                given = self._repeats.setdefault(layer, [])
                given.append((block, start, end))

    def dim(self, name: str, is_input: bool) -> Dim:
        """Number of channels on one side of a part."""
        return self._dim(name, is_input, 0, self._channels(name, is_input))

    def _channels(self, name: str, is_input: bool) -> int:
        return channels_of(self.parts[name], is_input)

    def _dim(self, name: str, is_input: bool, start: int, end: int) -> Dim:
        """Number of channels in a range on one side of a part."""
        tied = self._tied.get((name, is_input), [])
        # A declaration may name a norm on one side alone.
        if is_norm(self.parts[name]):
            tied = tied or self._tied.get((name, not is_input), [])
        inside = [
            (unit, min(b, end) - max(a, start))
            for unit, a, b in tied
            if a < end and b > start
        ]
        searched = sum(channels for _, channels in inside)
        multiples = tuple(
            (unit, channels / self.sizes[unit]) for unit, channels in inside
        )
        return Dim(float(end - start - searched), multiples)

    def _concatenated(self, layer: str) -> List[Product]:
        """Input channels of a layer that reads removable blocks."""
        dims, position = [], 0
        for block, start, end in sorted(
            self._repeats[layer], key=lambda given: given[1]
        ):
            if start > position:
                dims.append(self._dim(layer, True, position, start))
            dims.append(
                self._dim(layer, True, start, end)._replace(block=block)
            )
            position = end
        last = self._channels(layer, True)
        if last > position:
            dims.append(self._dim(layer, True, position, last))
        return [(1.0, (dim,)) for dim in dims]

    def products(self, layer: str, is_input: bool) -> List[Product]:
        """Number of channels on one side of a layer, as a sum of products.

        What an attention's layers give and read are heads times dims.
        """
        owner = layer.rpartition('.')[0]
        while owner:
            kind = block_kind_of(self.modules[owner])
            if kind is not None:
                child = layer[len(owner) + 1 :]
                products = kind.widths(self, owner, child, is_input)
                if products is not None:
                    return products
            owner = owner.rpartition('.')[0]
        if is_input and layer in self._repeats:
            return self._concatenated(layer)
        return [(1.0, (self.dim(layer, is_input),))]

    def passing(self, layer: str) -> Product:
        """How many channels a linear layer is applied to, of all it was.

        Those of which it mixes the positions; 1 for any other layer.
        """
        tied = self._tied.get((f'{POSITIONS}{layer}', True))
        if not tied:
            return 1.0, ()
        total = max(end for _, _, end in tied)
        multiples = tuple(
            (unit, (end - start) / self.sizes[unit])
            for unit, start, end in tied
        )
        fixed = float(total - sum(end - start for _, start, end in tied))
        return 1.0 / total, (Dim(fixed, multiples),)

    def units_of(self, layer: str, is_input: bool) -> List[int]:
        """Indices of the units on one side of a layer."""
        units = [
            unit
            for _, dims in self.products(layer, is_input)
            for dim in dims
            for unit, _ in dim.units
        ]
        return list(dict.fromkeys(units))

    def block(self, name: str) -> Optional[int]:
        """Index of the removable block that a layer is in, if any."""
        for index, block in enumerate(self.blocks):
            # A parameter of the block itself has the block's own name.
            if name == block or name.startswith(block + '.'):
                return index
        return None
