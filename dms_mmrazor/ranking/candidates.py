"""Candidates of one budget from one search.

Where a search leaves a choice: structures near the one that it has found,
those of its checkpoints, and (with no code at all) those of other seeds.
"""

import os.path as osp
import random
from math import exp
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from mmengine.config import Config

from dms_mmrazor.baselines.structures import Candidates, kept_blocks_first
from dms_mmrazor.cli.checkpoint_export import export_checkpoint
from dms_mmrazor.engine.search_config import (
    build_algorithm,
    find_resource_hook,
)
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.subnet import (
    Structure,
    load_structure,
    save_structure,
)

CLOSE = 0.02
"""Resources of a perturbation relative to the original's."""

TRIES = 20
"""Draws for each perturbation that is asked for."""

Shape = Tuple[Tuple[int, ...], Tuple[Tuple[str, ...], ...]]


def targets_of(structure: Structure) -> Dict[str, float]:
    """Kind → value of the resources that a structure was fitted to.

    Those of the structure itself, not of its target; MACs if it had none.

    Raises:
        DMSError: If its file says nothing of MACs either.
    """
    rows = structure.resources
    kinds = [kind for kind, row in rows.items() if 'target' in row]
    kinds = kinds or [kind for kind in ('macs',) if kind in rows]
    if not kinds:
        raise DMSError(
            '`resources` of the structure are empty: perturbations of the '
            'same budget need its MACs.'
        )
    return {kind: float(rows[kind]['subnet']) for kind in kinds}


def perturbed(
    mutator: DMSMutator,
    structure: Structure,
    number: int,
    scale: float = 0.2,
    seed: int = 0,
    divisor: int = 8,
) -> List[Structure]:
    """Structures near another one, of the same resources.

    All kept portions are multiplied by exp(normal(0, scale)) and fitted to
    the resources again; units keep their first channels, stages the blocks
    that the structure keeps before others.

    Args:
        mutator (DMSMutator): Prepared, of the same supernet; not changed.
        structure (Structure): What a search has found.
        number (int): How many.
        scale (float): Of the noise. Defaults to 0.2.
        seed (int): Of the noise. Defaults to 0.
        divisor (int): Of the widths. Defaults to 8.

    Returns:
        list[Structure]: Unlike each other and the structure, within 2 % of
        its resources.

    Raises:
        DMSError: If so many cannot be found.
    """
    targets = targets_of(structure)
    scores = kept_blocks_first(mutator, structure)
    candidates = Candidates(mutator, targets, scores)
    start, draw = _portions(mutator, structure), random.Random(seed)
    found: Dict[Shape, Structure] = {_shape(structure): structure}
    for _ in range(TRIES * number):
        portions = [
            min(portion * exp(draw.gauss(0, scale)), 1.0) for portion in start
        ]
        try:
            fitted = candidates.structure(portions, divisor)
        except DMSError:
            continue  # these depths cannot be as small or as large
        apart = [
            abs(fitted.resources[kind]['subnet'] / value - 1)
            for kind, value in targets.items()
        ]
        if max(apart) <= CLOSE:
            how = {**structure.search, 'perturbed': {'scale': scale}}
            found.setdefault(_shape(fitted), fitted._replace(search=how))
        if len(found) > number:
            return list(found.values())[1:]
    raise DMSError(
        f'`perturb={number}`: only {len(found) - 1} structures within '
        f'{CLOSE:.0%} of the same budget were found; ask for fewer, for more '
        f'noise than {scale:g}, or a smaller divisor than {divisor}.'
    )


def _portions(mutator: DMSMutator, structure: Structure) -> List[float]:
    """Kept portion of each unit and stage, in the mutator's order.

    Raises:
        DMSError: If the structure has other units.
    """
    kept = {u.name: len(u.kept) / u.size for u in structure.units}
    kept.update(
        {s.name: len(s.kept) / len(s.blocks) for s in structure.stages}
    )
    names = [unit.name for unit in mutator.searched_units]
    unknown = sorted(set(names) ^ set(kept))
    if unknown:
        raise DMSError(
            f'unit {unknown[0]!r} is only in one of structure and search: '
            'the structure is of another search space.'
        )
    return [kept[name] for name in names]


def _shape(structure: Structure) -> Shape:
    widths = tuple(len(unit.kept) for unit in structure.units)
    return widths, tuple(stage.kept for stage in structure.stages)


def write_perturbed(
    cfg: Config, paths: Sequence[str], number: int, folder: str, scale: float
) -> List[str]:
    """Perturbations of each structure as files, unless they are there.

    Args:
        cfg (Config): Of the search.
        paths (Sequence[str]): Structures that it has found.
        number (int): Of each.
        folder (str): Where to.
        scale (float): See :func:`perturbed`.

    Returns:
        list[str]: Paths of the perturbations.
    """
    written: List[str] = []
    mutator: Optional[DMSMutator] = None
    for index, path in enumerate(paths):
        files = [
            osp.join(folder, f'perturbed{index}-{scale:g}-{i}.yaml')
            for i in range(number)
        ]
        written += files
        if all(osp.exists(file) for file in files):
            continue
        if mutator is None:
            mutator = build_algorithm(cfg).mutator
        divisor = find_resource_hook(cfg).divisor
        made = perturbed(
            mutator, load_structure(path), number, scale, index, divisor
        )
        for structure, file in zip(made, files):
            save_structure(structure, file)
    return written


def from_checkpoints(
    cfg: Config, paths: Sequence[str], folder: str
) -> List[str]:
    """Structures of a search's checkpoints, each for the final target.

    Args:
        cfg (Config): Of the search.
        paths (Sequence[str]): Its checkpoints.
        folder (str): Where to.

    Returns:
        list[str]: Paths of the structures.
    """
    written = []
    for path in paths:
        name = osp.splitext(osp.basename(path))[0]
        parent = osp.basename(osp.dirname(osp.abspath(path)))
        target = osp.join(folder, f'{parent}-{name}')
        written.append(osp.join(target, 'subnet.yaml'))
        if not osp.exists(written[-1]):
            hook = find_resource_hook(cfg)
            export_checkpoint(cfg, hook, path, target, scheduled=False)
    return written


def resources_of(structure: Structure) -> Mapping[str, float]:
    """Kind → value, as the structure's file says."""
    return {
        kind: float(row['subnet'])
        for kind, row in structure.resources.items()
        if 'subnet' in row
    }


def common_budget(structures: Sequence[Structure]) -> List[str]:
    """Kinds that all structures had a target for; MACs if there are none."""
    kinds = [
        {k for k, row in s.resources.items() if 'target' in row}
        for s in structures
    ]
    shared = set.intersection(*kinds) if kinds else set()
    return sorted(shared) or ['macs']
