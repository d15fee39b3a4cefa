"""From a searched supernet to a plain subnet and its two files."""

import logging
import os
from copy import deepcopy
from typing import (
    Any,
    Dict,
    Mapping,
    NamedTuple,
    Optional,
    Union,
)

import torch
from mmengine.logging import print_log
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import plain_value, written_at_once
from dms_mmrazor.graph.demo import DemoInput, demo_tensor
from dms_mmrazor.graph.outputs import IncomparableError
from dms_mmrazor.graph.running import (
    ForwardError,
    live_tensors,
    naming_modules,
)
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.search.fitted_structure import (
    FittedStructure,
    fit_choices,
    fit_structure,
)
from dms_mmrazor.search.structure_search import Searched
from dms_mmrazor.subnet import (
    Structure,
    load_structure,
    prune,
    pruned_copy,
    save_structure,
)
from dms_mmrazor.supernet.difference import TOLERANCE, compare
from dms_mmrazor.supernet.plain import plain_copy
from dms_mmrazor.supernet.plain_model import check_whole
from dms_mmrazor.supernet.resources import RESOURCES
from dms_mmrazor.version import __version__

STRUCTURE_FILE = 'subnet.yaml'
WEIGHTS_FILE = 'subnet.pth'

_COUNTED_ALIKE = 1e-3
"""Predicted and counted resources may differ by this, relative."""


class ExportedSubnet(NamedTuple):
    """A plain subnet.

    Printed, it is one line.

    Attributes:
        structure (Structure): What it keeps.
        model (nn.Module): The plain static model with its weights.
        difference (float): Largest relative difference between its outputs
            and those of the masked supernet, on one image; nan if there is
            nothing to compare.
        fit (FittedStructure): What meeting the targets has changed.
    """

    structure: Structure
    model: nn.Module
    difference: float
    fit: FittedStructure

    def __repr__(self) -> str:
        """One line; the whole structure would be pages."""
        return (
            f'ExportedSubnet({type(self.model).__name__}, '
            f'{self.structure!r}, difference={self.difference:.2g})'
        )


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
    topk = mutator.topk
    before = deepcopy(topk.state_dict())
    try:
        topk.importance.zero_()  # ties keep the first channels
        topk.pruning_ratio.data.zero_()
        topk.release_()
        choices = fit_choices(mutator, targets, divisor)
        kinds = mutator.table.full
        counted = {kind: mutator.resource_of(kind, choices) for kind in kinds}
        rows = _resource_rows(mutator, counted, targets)
        return mutator.structure(choices, resources=rows)
    finally:
        topk.load_state_dict(before)


def export_subnet(
    algorithm: Searched,
    targets: Optional[Mapping[str, float]] = None,
    divisor: int = 8,
    search: Optional[Dict[str, Any]] = None,
) -> ExportedSubnet:
    """Cut the searched architecture down to a plain static model.

    Args:
        algorithm (Searched): After (or during) a search; it is not
            changed.
        targets (Mapping[str, float], optional): Resource kind → absolute
            target. Defaults to None.
        divisor (int): See :func:`fit_choices`. Defaults to 8; 1 is the
            paper's setting.
        search (dict, optional): How the structure was found, for the
            structure file. Defaults to None.

    Raises:
        DMSError: If a target cannot be reached, or the subnet has other
            resources than the search has counted.
    """
    mutator = algorithm.mutator
    targets = dict(targets or {})
    prices = algorithm.structure.prices()
    # Rounding narrows where the search has found pruning to be cheap.
    fit = fit_structure(mutator, targets, divisor, prices)
    choices = fit.choices
    structure = mutator.structure(choices)
    model = _subnet(algorithm.architecture, structure)
    # Counted anew on the subnet: the file must not repeat what was predicted.
    counted = _counted(mutator, model, choices)
    _check_counts(mutator, counted, choices)
    resources = _resource_rows(mutator, counted, targets)
    structure = structure._replace(
        resources=resources, search={**(search or {}), 'divisor': divisor}
    )
    with mutator.masks.showing(structure_masks(mutator, choices)):
        found = _difference(
            algorithm.architecture, model, mutator.analyzer.demo
        )
    return ExportedSubnet(structure, model.cpu(), found, fit)


def _subnet(architecture: nn.Module, structure: Structure) -> nn.Module:
    """The plain subnet with weights of its own, on the CPU.

    It is cut from the supernet's own tensors: a copy of all of them would
    have to fit beside the supernet and the optimizer's state.
    """
    model = pruned_copy(plain_copy(architecture, share=True), structure).cpu()
    shared = {t.data_ptr() for t in live_tensors(architecture).values()}
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.data_ptr() in shared:
            tensor.data = tensor.data.clone()
    return model


def _difference(
    supernet: nn.Module, model: nn.Module, size: DemoInput
) -> float:
    """How far masked supernet and subnet are apart; nan if it is unknown."""
    device = next(supernet.parameters()).device
    try:
        found = compare(supernet, model.to(device), demo_tensor(model, size))
    except (ForwardError, IncomparableError) as error:
        found, text = float('nan'), f'cannot be compared with it: {error}'
    else:
        text = f'differs from it by {found:.1e} (relative)'
    if not found <= TOLERANCE:
        print_log(
            'the exported subnet has to equal the masked supernet, but '
            f'{text}. Do not trust it, and please report the model.',
            logger='current',
            level=logging.ERROR,
        )
    return found


def _check_counts(
    mutator: DMSMutator,
    counted: Mapping[str, float],
    choices: Mapping[str, int],
) -> None:
    """Make sure that the search has counted what the subnet has.

    Raises:
        DMSError: If a resource is another one than predicted.
    """
    for kind, value in counted.items():
        predicted = mutator.resource_of(kind, choices)
        if abs(value - predicted) > _COUNTED_ALIKE * predicted:
            raise DMSError(
                f'`{kind}` of the subnet are {value:.6g}, but the search '
                f'counted {predicted:.6g}: its target is not met. Something '
                'in the model is counted wrongly; please report it.'
            )


def structure_masks(
    mutator: DMSMutator, choices: Mapping[str, int]
) -> torch.Tensor:
    """Hard masks [C] of other choices, as floats."""
    return mutator.topk_with(choices).hard_mask().to(torch.float32)


def _counted(
    mutator: DMSMutator, model: nn.Module, choices: Mapping[str, int]
) -> Dict[str, float]:
    """Resources counted on an exported model, or else predicted.

    Raises:
        DMSError: If the model does not run.
    """
    size = mutator.analyzer.demo
    counted = {}
    for kind in mutator.table.full:
        count = RESOURCES[kind].count
        if count is None:
            counted[kind] = mutator.resource_of(kind, choices)
            continue
        try:
            with naming_modules(model):
                counted[kind] = count(model, size)
        except ForwardError as error:
            raise DMSError(
                f'the exported subnet does not run, it fails {error}. What '
                'the model runs seems to depend on the widths or on what it '
                'did before: exclude what that layer reads by '
                '`mutator.exclude`.'
            ) from error
    return counted


def _resource_rows(
    mutator: DMSMutator,
    counted: Mapping[str, float],
    targets: Mapping[str, float],
) -> Dict[str, Dict[str, float]]:
    """Rows of the structure file: before, after, ratio and target."""
    table: Dict[str, Dict[str, float]] = {}
    for kind, value in counted.items():
        rounded = RESOURCES[kind].for_file
        supernet = mutator.table.full[kind]
        table[kind] = {
            'supernet': rounded(supernet),
            'subnet': rounded(value),
            'ratio': round(value / supernet, 4),
        }
        if kind in targets:
            table[kind]['target'] = rounded(float(targets[kind]))
    for kind, notes in mutator.table.notes.items():
        table[kind].update(notes)
    return table


def how_found(wanted: Mapping[str, Any], iterations: int) -> Dict[str, Any]:
    """How a structure was found, for its file.

    Args:
        wanted (Mapping[str, Any]): Targets by kind, as the user wrote them.
        iterations (int): Of the search.
    """
    return {
        'dms_mmrazor': __version__,
        'torch': str(torch.__version__),
        'target': {kind: plain_value(v) for kind, v in wanted.items()},
        'iterations': iterations,
    }


def apply_structure(
    model: nn.Module, structure: Union[str, 'os.PathLike[str]', Structure]
) -> nn.Module:
    """Cut a plain model down to a structure that a search has found.

    Args:
        model (nn.Module): The whole model as it was searched; it changes.
            Its weights stay with the channels that are kept.
        structure (str | Path | Structure): What was found, or the file of
            it.

    Returns:
        nn.Module: The model.

    Raises:
        DMSError: If the structure is of another model, or one of the two is
            something else.
    """
    check_whole(model, 'apply_structure')
    where = ''
    if isinstance(structure, (str, os.PathLike)):
        where = f'{os.fspath(structure)}: '
        structure = load_structure(os.fspath(structure))
    if not isinstance(structure, Structure):
        raise DMSError(
            'apply_structure: `structure` must be the path of a structure '
            'file, or the `structure` of an exported subnet; got '
            f'{type(structure).__name__}.'
        )
    try:
        return prune(model, structure)
    except DMSError as error:
        raise DMSError(f'{where}{error}') from None


def save_subnet(
    subnet: ExportedSubnet,
    folder: str,
    dataset_meta: Optional[Mapping[str, Any]] = None,
) -> Dict[str, str]:
    """Write ``subnet.yaml`` and ``subnet.pth``, each in one piece.

    Args:
        subnet (ExportedSubnet): What :func:`export_subnet` returned.
        folder (str): Where to; it is made if missing.
        dataset_meta (Mapping[str, Any], optional): Names of the classes and
            the like, for OpenMMLab's inferencers, which take those of COCO
            or ImageNet where a checkpoint has none. Defaults to None.

    Returns:
        dict[str, str]: 'structure' and 'weights' → path.
    """
    paths = {
        'weights': os.path.join(folder, WEIGHTS_FILE),
        'structure': os.path.join(folder, STRUCTURE_FILE),
    }
    meta = {'dataset_meta': dict(dataset_meta)} if dataset_meta else {}
    checkpoint = {'state_dict': subnet.model.state_dict(), 'meta': meta}
    with written_at_once(paths['weights']) as temporary:
        torch.save(checkpoint, temporary)
    save_structure(subnet.structure, paths['structure'])
    return paths
