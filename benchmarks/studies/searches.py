"""Searches on a bed, and the settings that each method is tried with."""

from typing import Any, Dict, Mapping, Sequence, Tuple

import beds
import torch
import torch.nn.functional as F
from torch import nn

from dms_mmrazor.apis.fitted_structure import fit_choices
from dms_mmrazor.baselines.masks import MASKS
from dms_mmrazor.core import resource_loss, scheduled_target
from dms_mmrazor.models.mutables import TopkOperator
from dms_mmrazor.models.subnet import Structure

DECAY = 0.8

GRIDS: Mapping[str, Sequence[Dict[str, Any]]] = {
    'dms': [dict(rule='plain', lr=lr) for lr in (3e-3, 1e-2, 3e-2)],
    'dms-adam': [dict(rule='adam', lr=lr) for lr in (1e-3, 2e-3, 5e-3)],
    'minmax': [dict(rule='plain', lr=lr) for lr in (3e-3, 1e-2, 3e-2)],
    'mes': [dict(rule='adam', lr=lr) for lr in (1e-2, 3e-2, 1e-1)],
    'sns': [dict(rule='adam', lr=lr) for lr in (1e-2, 3e-2, 1e-1)],
    'get': [dict(rule='adam', lr=lr) for lr in (1e-2, 3e-2, 1e-1)],
}
"""By method; one of them is chosen on validation data."""


def mutator_settings(method: str) -> Dict[str, Any]:
    """Arguments of DMSMutator for a method."""
    return {}


def use_masks(mutator: Any, method: str) -> None:
    """Let another mask parametrization choose the elements."""
    if method not in MASKS:
        return
    state = mutator.masks
    old = state.topk.operators
    topk = MASKS[method](
        [op.size for op in old],
        temperatures=[op.temperature for op in old],
        steps=[op.step for op in old],
        min_kept=[unit.min_kept for unit in mutator.units]
        + [stage.min_blocks for stage in mutator.depth_units],
        max_kept=[unit.max_kept for unit in mutator.units]
        + [stage.max_blocks for stage in mutator.depth_units],
    )
    topk.project_()
    state.topk = topk
    for index, unit in enumerate([*mutator.units, *mutator.depth_units]):
        unit.bind(TopkOperator(topk, state.table, index))


def search(
    supernet: nn.Module,
    mutator: Any,
    bed: beds.Bed,
    split: beds.Split,
    targets: Dict[str, float],
    settings: Dict[str, Any],
    options: Dict[str, Any],
) -> Tuple[Structure, int]:
    """Search on a bed; the structure and the number of images seen."""
    use_masks(mutator, settings['method'])
    topk, state = mutator.topk, mutator.masks
    learnable = getattr(topk, 'learnable', lambda: [topk.pruning_ratio])()
    supernet.requires_grad_(settings['retrained'])
    supernet.train()
    optimizer = (
        beds.make_optimizer(supernet, bed) if settings['retrained'] else None
    )
    kind = {'plain': torch.optim.SGD, 'adam': torch.optim.Adam}
    structure_optimizer = kind[options['rule']](learnable, options['lr'])
    iterations = beds.iterations_of(bed, split)
    full, final = mutator.table.full['macs'], targets['macs']
    data = beds.batches(split, iterations, settings['seed'], bed.shift)
    for iteration, (images, labels) in enumerate(data):
        progress = (iteration + 1) / iterations
        decayed = min(progress / DECAY, 1.0)
        if decayed >= 1 and not topk.held.any():
            state.hold_depth()
        if hasattr(topk, 'set_progress_'):
            topk.set_progress_(progress)
        if optimizer is not None:
            beds.set_lr(optimizer, bed, progress)
            optimizer.zero_grad()
        structure_optimizer.zero_grad()
        state.use_soft_masks()
        loss = F.cross_entropy(supernet(images), labels)
        blocks = state.table.blocks
        if hasattr(topk, 'expected_mask'):
            blocks = topk.expected_mask()[state.num_channels :]
        current = mutator.table.soft('macs', blocks)
        target = scheduled_target(decayed, full, final)
        (loss + resource_loss(current, target)).backward()
        if optimizer is not None:
            optimizer.step()
        structure_optimizer.step()
        state.finish_step()
    mutator.set_choices(fit_choices(mutator, targets, settings['divisor']))
    value = mutator.resource('macs')
    row = {'supernet': full, 'subnet': value, 'ratio': round(value / full, 4)}
    structure = mutator.structure(resources={'macs': row})
    return structure, iterations * beds.BATCH
