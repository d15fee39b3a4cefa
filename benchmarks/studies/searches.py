"""Searches on a bed, and the settings that each method is tried with."""

from typing import Any, Dict, Mapping, Sequence, Tuple

import beds
import torch.nn.functional as F
from torch import nn

from dms_mmrazor.core import scheduled_target
from dms_mmrazor.models.subnet import Structure
from dms_mmrazor.search import StructureSearch
from dms_mmrazor.search.fitted_structure import fit_choices

DECAY = 0.8

GRIDS: Mapping[str, Sequence[Dict[str, Any]]] = {
    'dms': [dict(rule='price')],
    'dms-plain': [dict(rule='plain', lr=lr) for lr in (3e-3, 1e-2, 3e-2)],
    'dms-adam': [dict(rule='adam', lr=lr) for lr in (1e-3, 2e-3, 5e-3)],
    'minmax': [dict(rule='plain', lr=lr) for lr in (3e-3, 1e-2, 3e-2)],
    'mes': [dict(rule='adam', lr=lr) for lr in (1e-2, 3e-2, 1e-1)],
    'sns': [dict(rule='adam', lr=lr) for lr in (1e-2, 3e-2, 1e-1)],
    'get': [dict(rule='adam', lr=lr) for lr in (1e-2, 3e-2, 1e-1)],
}
"""By method; one of them is chosen on validation data.

The rule ``price`` derives its learning rate and has nothing to choose.
"""


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
    topk, masks = mutator.topk, mutator.masks
    structure = StructureSearch(mutator, options)
    structure.set_constraints({'macs': 1.0})
    iterations = beds.iterations_of(bed, split)
    structure.step.set_length(iterations)
    supernet.train().requires_grad_(settings['retrained'])
    optimizer = (
        beds.make_optimizer(supernet, bed) if settings['retrained'] else None
    )
    full, final = mutator.table.full['macs'], targets['macs']
    data = beds.batches(split, iterations, settings['seed'], bed.shift)
    for iteration, (images, labels) in enumerate(data):
        progress = (iteration + 1) / iterations
        decayed = min(progress / DECAY, 1.0)
        if decayed >= 1 and not topk.held.any():
            masks.hold_depth()
        topk.set_progress_(progress)
        target = scheduled_target(decayed, full, final)
        structure.set_targets({'macs': target})
        structure.begin()
        loss = F.cross_entropy(supernet(images), labels)
        if optimizer is not None:
            beds.set_lr(optimizer, bed, progress)
            optimizer.zero_grad()
        loss.backward()
        if optimizer is not None:
            optimizer.step()
        structure.finish()
    mutator.set_choices(fit_choices(mutator, targets, settings['divisor']))
    value = mutator.resource('macs')
    row = {'supernet': full, 'subnet': value, 'ratio': round(value / full, 4)}
    found = mutator.structure(resources={'macs': row})
    return found, iterations * beds.BATCH
