"""Searches on a bed, and the settings that each method is tried with."""

from typing import Any, Dict, Mapping, Sequence, Tuple

import beds
import torch.nn.functional as F
from torch import nn

from dms_mmrazor.baselines.masks import MASKS
from dms_mmrazor.core.durations import phase_lengths
from dms_mmrazor.search import StructureSearch
from dms_mmrazor.search.fitted_structure import fit_choices
from dms_mmrazor.search.milestones import TargetPath, as_milestones
from dms_mmrazor.search.phases import SearchPhases
from dms_mmrazor.subnet import Structure

Options = Dict[str, Any]

GRIDS: Mapping[str, Sequence[Options]] = {
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

SETTLE = 0.05
"""Part of a search that it stays at each milestone: the default."""

STEP = ('rule', 'lr', 'average', 'signal')
"""Options that are those of the structure step."""


def mutator_settings(method: str, options: Options) -> Dict[str, Any]:
    """Arguments of DMSMutator that a method and its options ask for."""
    settings: Dict[str, Any] = {}
    if method in MASKS:
        settings['method'] = method
    if 'importance' in options:
        settings['importance'] = options['importance']
    if options.get('widths_only'):
        settings['depth_unit_cfg'] = None
    return settings


def search(
    supernet: nn.Module,
    mutator: Any,
    bed: beds.Bed,
    split: beds.Split,
    targets: Dict[str, float],
    settings: Dict[str, Any],
    options: Options,
) -> Tuple[Structure, int]:
    """Search on a bed; the structure and the number of images seen.

    Args:
        supernet (nn.Module): Of a prepared mutator.
        mutator (DMSMutator): Its units.
        bed (Bed): The training of the weights.
        split (Split): What is learned.
        targets (dict[str, float]): Resource kind → absolute target.
        settings (dict): Of the study: ``retrained``, ``finetuned`` (if
            neither, weights stay what they are), ``seed``, ``divisor``.
        options (dict): Of the method: ``rule``, ``lr``, ``average``,
            ``signal``,
            ``lr_factor`` (of the rate that the step chooses itself),
            ``loss_weight``, ``warmup``, ``decay``, ``hold_depth``,
            ``weights_lr`` (relative to the bed's).
    """
    found, images = search_family(
        supernet, mutator, bed, split, targets, settings, options
    )
    return found['subnet'], images


def search_family(
    supernet: nn.Module,
    mutator: Any,
    bed: beds.Bed,
    split: beds.Split,
    targets: Dict[str, float],
    settings: Dict[str, Any],
    options: Options,
    milestones: Sequence[float] = (),
) -> Tuple[Dict[str, Structure], int]:
    """As :func:`search`, with budgets on the way.

    Args:
        supernet (nn.Module): Of a prepared mutator.
        mutator (DMSMutator): Its units; at the end with the last structure.
        bed (Bed): The training of the weights.
        split (Split): What is learned.
        targets (dict[str, float]): Resource kind → absolute target.
        settings (dict): See :func:`search`.
        options (dict): See :func:`search`.
        milestones (Sequence[float]): Ratios to the supernet, falling to the
            target. Defaults to (), none.

    Returns:
        tuple[dict[str, Structure], int]: By name, as 'subnet-50' and at the
        end 'subnet'; and the images seen.
    """
    step = {key: options[key] for key in STEP if key in options}
    structure = StructureSearch(mutator, step, supernet)
    weight = options.get('loss_weight', 1.0)
    structure.set_constraints(dict.fromkeys(targets, weight))
    iterations = beds.iterations_of(bed, split)
    structure.step.set_length(iterations)
    structure.step.lr *= options.get('lr_factor', 1.0)
    lengths = phase_lengths(
        options.get('warmup', 0.0), options.get('decay', 0.8), iterations
    )
    hold = options.get('hold_depth', True)
    wanted = as_milestones(list(milestones), targets)
    path = TargetPath(
        mutator,
        targets,
        lengths,
        milestones=wanted,
        settle=SETTLE * iterations,
        divisor=settings['divisor'],
    )
    phases = SearchPhases(mutator, structure, path, hold_depth=hold)
    trains = settings['retrained'] or settings.get('finetuned', False)
    supernet.train().requires_grad_(trains)
    bed = bed._replace(lr=bed.lr * options.get('weights_lr', 1.0))
    optimizer = beds.make_optimizer(supernet, bed) if trains else None
    data = beds.batches(split, iterations, settings['seed'], bed.shift)
    found: Dict[str, Structure] = {}
    for iteration, (images, labels) in enumerate(data):
        due = phases.begin(iteration).due
        structure.begin()
        loss = F.cross_entropy(supernet(images), labels)
        if optimizer is not None:
            beds.set_lr(optimizer, bed, (iteration + 1) / iterations)
            optimizer.zero_grad()
        loss.backward()
        if optimizer is not None:
            optimizer.step()
        structure.finish()
        if due is not None:
            choices = _choices(mutator, structure, due.targets, settings)
            found[due.name] = _described(mutator, choices, due.targets)
    choices = _choices(mutator, structure, targets, settings)
    found['subnet'] = _described(mutator, choices, targets)
    mutator.set_choices(choices)
    return found, iterations * beds.BATCH


def _choices(
    mutator: Any,
    structure: StructureSearch,
    targets: Dict[str, float],
    settings: Dict[str, Any],
) -> Dict[str, int]:
    prices = structure.prices()
    return fit_choices(mutator, targets, settings['divisor'], prices)


def _described(
    mutator: Any, choices: Dict[str, int], targets: Dict[str, float]
) -> Structure:
    """The structure of some choices, with its resources."""
    rows = {}
    for kind, target in targets.items():
        full = mutator.table.full[kind]
        value = mutator.resource_of(kind, choices)
        rows[kind] = {
            'supernet': full,
            'subnet': value,
            'ratio': round(value / full, 4),
            'target': target,
        }
    return mutator.structure(choices, resources=rows)
