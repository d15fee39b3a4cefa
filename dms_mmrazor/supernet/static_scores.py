"""Importances that do not come from gradients (paper, Table 6)."""

from typing import Dict, List, Sequence, Tuple

import torch
from torch import Tensor, nn

from dms_mmrazor.core import KeepsPrecision, index_importance
from dms_mmrazor.layers import (
    HEADS,
    AttentionDim,
    channels_of,
    is_weighted,
    kind_of,
)
from dms_mmrazor.layers.attention import (
    QK_DIMS,
    V_DIMS,
    count_rows,
    rows_by_layer,
    split_qkv,
)
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit

Pairs = Tuple[Tensor, Tensor]
"""Outputs of a layer, and the unit's channel that each belongs to."""


_POWERS = {'l1': 1, 'l2': 2}
"""Of the metrics that are norms of weights."""


class StaticScores(KeepsPrecision):
    """Scores of all channels and blocks, for each step anew.

    Which outputs of which layer belong to a channel is found once. A step
    takes one norm per layer, as their weights are tensors of their own, and
    four tensor operations for all units together, without synchronization.

    Args:
        metric (str): 'index', 'l1' or 'l2' (of all weights that make a
            channel). Blocks are always scored by index: their weights have
            no common scale.
        units (Sequence[DMSChannelUnit]): Width units of a prepared
            supernet.
        stages (Sequence[DMSDepthUnit]): Depth units.
    """

    fixed: Tensor
    outputs: Tensor
    lengths: Tensor

    def __init__(
        self,
        metric: str,
        units: Sequence[DMSChannelUnit],
        stages: Sequence[DMSDepthUnit],
    ) -> None:
        super().__init__()
        self.power = _POWERS.get(metric, 0)
        weighted = units if self.power else ()
        numbers = [] if weighted else [unit.num_channels for unit in units]
        numbers += [stage.num_blocks for stage in stages]
        parts = [index_importance(number) for number in numbers]
        producers = [_producers(unit) for unit in weighted]
        # In a list, not a ModuleList: they belong to the supernet.
        self.layers: List[nn.Module] = list(
            dict.fromkeys(layer for unit in producers for layer in unit)
        )
        outputs, lengths = self._sums(weighted, producers)
        constants = {
            'fixed': torch.cat([torch.zeros(0), *parts]),
            'outputs': outputs,
            'lengths': lengths,
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def _sums(
        self,
        units: Sequence[DMSChannelUnit],
        producers: Sequence[Dict[nn.Module, Pairs]],
    ) -> Tuple[Tensor, Tensor]:
        """Outputs of all layers, ordered by channel, and their numbers."""
        starts, total = {}, 0
        for layer in self.layers:
            starts[layer] = total
            total += channels_of(layer, False)
        outputs, channels, first = [torch.zeros(0).long()], [], 0
        for unit, layers in zip(units, producers):
            for layer, (rows, owners) in layers.items():
                outputs.append(rows + starts[layer])
                channels.append(owners + first)
            first += unit.num_channels
        owner = torch.cat([outputs[0], *channels])
        order = torch.sort(owner, stable=True).indices
        lengths = torch.bincount(owner, minlength=first)
        return torch.cat(outputs)[order], lengths

    @torch.no_grad()
    def forward(self) -> Tensor:
        """Scores [C]: the units' channels, then the blocks."""
        if not len(self.lengths):
            return self.fixed
        norms = [self.fixed[:0]]
        norms += [
            sum(
                _powers(weight.to(self.fixed), self.power)
                for weight in kind_of(layer).weights_by_outputs(layer)
            )
            for layer in self.layers
        ]
        rows = torch.cat(norms).index_select(0, self.outputs)
        # Without atomic additions: equal on all ranks.
        scores = torch.segment_reduce(
            rows, 'sum', lengths=self.lengths, initial=0, unsafe=True
        )
        if self.power == 2:
            scores = scores.sqrt()
        return torch.cat([scores, self.fixed])


def _powers(weight: Tensor, power: int) -> Tensor:
    """Norm of what makes each output, to its power: [out]."""
    norms = torch.linalg.vector_norm(
        weight, power, dim=tuple(range(1, weight.dim()))
    )
    return norms if power == 1 else norms.square()


def _producers(unit: DMSChannelUnit) -> Dict[nn.Module, Pairs]:
    """Layers that give a unit's channels, with their outputs."""
    if unit.attention_dim is not None:
        rows, owners = _in_qkv(unit.attention_dim)
        parts = rows_by_layer(unit.attention_dim.module, rows)
        return {layer: (own, owners[inside]) for layer, inside, own in parts}
    found: Dict[nn.Module, List[Pairs]] = {}
    for channel in unit.output_related:
        if is_weighted(channel.module):
            rows = torch.arange(channel.start, channel.end)
            each = len(rows) // unit.num_channels
            owners = torch.arange(unit.num_channels).repeat_interleave(each)
            found.setdefault(channel.module, []).append((rows, owners))
    return {
        layer: (
            torch.cat([r for r, _ in pairs]),
            torch.cat([o for _, o in pairs]),
        )
        for layer, pairs in found.items()
    }


def _in_qkv(dim: AttentionDim) -> Pairs:
    """Outputs of ``qkv`` of each head or dim."""
    numbers = torch.arange(count_rows(dim.module))
    query, key, value = split_qkv(dim.module, numbers)
    parts = {
        HEADS: (query, key, value),
        QK_DIMS: (query, key),
        V_DIMS: (value,),
    }[dim.kind]
    owners = []
    for part in parts:
        heads, dims = part.shape
        index = torch.arange(heads if dim.kind == HEADS else dims)
        grid = index[:, None] if dim.kind == HEADS else index
        owners.append(grid.expand(heads, dims).flatten())
    return torch.cat([part.flatten() for part in parts]), torch.cat(owners)
