"""From a searched supernet to a plain subnet and its two files."""

import os
from copy import deepcopy
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

import torch
from mmengine.logging import print_log
from torch import nn

from dms_mmrazor.apis.plain import plain_copy
from dms_mmrazor.core import fit_to_targets
from dms_mmrazor.core.allowed import make_units
from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import written_at_once
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.models.mutators.verify import TOLERANCE, max_difference
from dms_mmrazor.models.subnet import Structure, prune, save_structure
from dms_mmrazor.models.tracing import count_macs
from dms_mmrazor.models.tracing.demo import demo_tensor

STRUCTURE_FILE = 'subnet.yaml'
WEIGHTS_FILE = 'subnet.pth'


class ExportedSubnet(NamedTuple):
    """A plain subnet.

    Attributes:
        structure (Structure): What it keeps.
        model (nn.Module): The plain static model with its weights.
        difference (float): Largest relative difference between its outputs
            and those of the masked supernet, on one image.
    """

    structure: Structure
    model: nn.Module
    difference: float


def fit_choices(
    mutator: DMSMutator, targets: Mapping[str, float], divisor: int = 8
) -> Dict[str, int]:
    """Whole numbers of channels and blocks at or under the targets.

    Depths are those of the hard masks; only if the narrowest widths still
    exceed a target, blocks are removed, the cheapest stage's choice last.

    Args:
        mutator (DMSMutator): After a search.
        targets (Mapping[str, float]): Resource kind → absolute target.
            Empty: only the divisibility is met.
        divisor (int): Widths are multiples of it, or full. Defaults to 8.

    Returns:
        dict[str, int]: As :meth:`DMSMutator.set_choices` takes them.

    Raises:
        DMSError: If a target cannot be reached.
    """
    depths = [stage.current_choice for stage in mutator.depth_units]
    space = (
        mutator.masks.kept().detach().cpu().tolist(),
        [unit.min_kept for unit in mutator.units],
        [unit.max_kept for unit in mutator.units],
    )
    if targets:
        kept = _fit_widths(mutator, targets, divisor, space, depths)
    else:
        divisors = mutator.divisors(divisor)
        widths = make_units(len(mutator.units), *space, divisors)
        kept = [width.nearest(width.wish) for width in widths]
    names = [unit.name for unit in [*mutator.units, *mutator.depth_units]]
    return dict(zip(names, [*kept, *depths]))


def _fit_widths(
    mutator: DMSMutator,
    targets: Mapping[str, float],
    divisor: int,
    space: Tuple[List[float], List[int], List[int]],
    depths: List[int],
) -> List[int]:
    """Widths that meet the targets; shortens ``depths`` if it must."""
    models = {
        kind: deepcopy(mutator.table.model(kind)).cpu() for kind in targets
    }
    divisors = mutator.divisors(divisor)
    while True:
        blocks = mutator.block_mask(depths).tolist()
        try:
            return fit_to_targets(
                models, targets, *space, blocks, divisors
            ).kept
        except ValueError as error:
            if not _remove_a_block(mutator, depths):
                raise DMSError(str(error)) from None


def uniform_structure(
    mutator: DMSMutator, targets: Mapping[str, float], divisor: int = 8
) -> Structure:
    """The supernet narrowed by one ratio everywhere: a baseline.

    All blocks stay, every unit keeps its first channels, in one proportion
    as far as whole numbers (and the divisor) allow.

    Args:
        mutator (DMSMutator): Of a prepared supernet.
        targets (Mapping[str, float]): Resource kind → absolute target.
        divisor (int): See :func:`fit_choices`. Defaults to 8.

    Raises:
        DMSError: If a target cannot be reached by widths alone.
    """
    baseline = deepcopy(mutator)
    baseline.topk.importance.zero_()  # ties keep the first channels
    baseline.topk.pruning_ratio.data.zero_()
    baseline.topk.release_()
    baseline.set_choices(fit_choices(baseline, targets, divisor))
    counted = {kind: baseline.resource(kind) for kind in baseline.table.full}
    return baseline.structure(
        resources=_resource_rows(baseline, counted, targets)
    )


def _remove_a_block(mutator: DMSMutator, depths: List[int]) -> bool:
    """Shorten the relatively deepest stage by one block, in place."""
    stages = mutator.depth_units
    room = [
        (depth / stage.num_blocks, -index)
        for index, (stage, depth) in enumerate(zip(stages, depths))
        if depth > stage.min_blocks
    ]
    if not room:
        return False
    depths[-max(room)[1]] -= 1
    return True


def export_subnet(
    algorithm: DMSAlgorithm,
    targets: Optional[Mapping[str, float]] = None,
    divisor: int = 8,
    search: Optional[Dict[str, Any]] = None,
) -> ExportedSubnet:
    """Cut the searched architecture down to a plain static model.

    Args:
        algorithm (DMSAlgorithm): After (or during) a search; it is not
            changed.
        targets (Mapping[str, float], optional): Resource kind → absolute
            target. Defaults to None.
        divisor (int): See :func:`fit_choices`. Defaults to 8; 1 is the
            paper's setting.
        search (dict, optional): How the structure was found, for the
            structure file. Defaults to None.

    Raises:
        DMSError: If a target cannot be reached.
    """
    mutator = algorithm.mutator
    targets = dict(targets or {})
    choices = fit_choices(mutator, targets, divisor)
    structure = mutator.structure(choices)
    model = prune(plain_copy(algorithm.architecture), structure).cpu()
    size = mutator.analyzer.input_size
    resources = _resources(mutator, model, targets, size)
    structure = structure._replace(
        resources=resources, search={**(search or {}), 'divisor': divisor}
    )
    with mutator.masks.showing(structure_masks(mutator, choices)):
        difference = max_difference(
            algorithm.architecture,
            model.to(mutator.topk.importance.device),
            demo_tensor(model, size),
        )
    if difference > TOLERANCE:
        print_log(
            f'the exported subnet differs from the masked supernet by '
            f'{difference:.1e} (relative): do not trust it, and please '
            'report the model.',
            logger='current',
            level=40,
        )
    return ExportedSubnet(structure, model.cpu(), difference)


def structure_masks(
    mutator: DMSMutator, choices: Mapping[str, int]
) -> torch.Tensor:
    """Hard masks [C] of other choices, as floats."""
    return mutator.topk_with(choices).hard_mask().to(torch.float32)


def _resources(
    mutator: DMSMutator,
    model: nn.Module,
    targets: Mapping[str, float],
    size: Any,
) -> Dict[str, Dict[str, float]]:
    """Resources before and after, counted on the exported model itself."""
    counted = {
        'macs': count_macs(model, size),
        'params': sum(p.numel() for p in model.parameters()),
    }
    return _resource_rows(mutator, counted, targets)


def _resource_rows(
    mutator: DMSMutator,
    counted: Mapping[str, float],
    targets: Mapping[str, float],
) -> Dict[str, Dict[str, float]]:
    """Rows of the structure file: before, after, ratio and target."""
    table: Dict[str, Dict[str, float]] = {}
    for kind, value in counted.items():
        supernet = round(mutator.table.full[kind])
        table[kind] = {
            'supernet': supernet,
            'subnet': int(value),
            'ratio': round(value / supernet, 4),
        }
        if kind in targets:
            table[kind]['target'] = round(float(targets[kind]))
    table['macs']['input_size'] = list(mutator.analyzer.input_size[1:])
    return table


def save_subnet(subnet: ExportedSubnet, folder: str) -> Dict[str, str]:
    """Write ``subnet.yaml`` and ``subnet.pth``, each in one piece.

    Args:
        subnet (ExportedSubnet): What :func:`export_subnet` returned.
        folder (str): Where to; it is made if missing.

    Returns:
        dict[str, str]: 'structure' and 'weights' → path.
    """
    paths = {
        'weights': os.path.join(folder, WEIGHTS_FILE),
        'structure': os.path.join(folder, STRUCTURE_FILE),
    }
    checkpoint = {'state_dict': subnet.model.state_dict(), 'meta': {}}
    with written_at_once(paths['weights']) as temporary:
        torch.save(checkpoint, temporary)
    save_structure(subnet.structure, paths['structure'])
    return paths
