"""Importances that do not come from gradients (paper, Table 6)."""

from typing import List, Optional, Sequence

import torch
from mmrazor.models.mutables.mutable_channel.units.channel_unit import Channel
from torch import Tensor, nn

from dms_mmrazor.core import index_importance, l1_importance
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit


def static_scores(
    metric: str,
    units: Sequence[DMSChannelUnit],
    stages: Sequence[DMSDepthUnit],
) -> Optional[Tensor]:
    """Scores of all channels and blocks, or ``None`` for other metrics.

    Args:
        metric (str): 'index' or 'l1'. Blocks are always scored by index:
            their weights have no common scale.
        units (Sequence[DMSChannelUnit]): Width units.
        stages (Sequence[DMSDepthUnit]): Depth units.

    Returns:
        Tensor, optional: [C], the units' channels, then the blocks.
    """
    if metric not in ('index', 'l1'):
        return None
    parts: List[Tensor] = []
    for unit in units:
        if metric == 'l1':
            parts.append(_l1_scores(unit))
        else:
            parts.append(index_importance(unit.num_channels))
    parts += [index_importance(stage.num_blocks) for stage in stages]
    device = parts[0].device
    return torch.cat([part.to(device) for part in parts])


def _l1_scores(unit: DMSChannelUnit) -> Tensor:
    """L1 norms of the filters that produce each channel, summed."""
    if unit.attention_dim is not None:
        attention = unit.attention_dim.module
        rows = l1_importance(attention.qkv.weight.detach(), 0)
        return unit.attention_dim.scores(rows)
    scores = [
        _producer_scores(channel, unit.num_channels)
        for channel in unit.output_related
        if isinstance(channel.module, (nn.Conv2d, nn.Linear))
    ]
    return torch.stack(scores).sum(dim=0)


def _producer_scores(channel: Channel, size: int) -> Tensor:
    scores = l1_importance(channel.module.weight.detach(), 0)
    return scores[channel.start : channel.end].view(size, -1).sum(dim=1)
