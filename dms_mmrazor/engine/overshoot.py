"""How far one step of the resource loss can fall below its target."""

import math
from typing import Dict, List, Mapping

import torch
from mmengine.runner import Runner
from torch import Tensor

from dms_mmrazor.engine.advice import LR, WEIGHT
from dms_mmrazor.engine.structure_group import LR as STRUCTURE_LR
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator

MUCH = 0.02
"""A step that changes a resource more than this is warned of."""


def optimizer_lr(runner: Runner) -> float:
    """Learning rate of the pruning ratios in the optimizer.

    Raises:
        DMSError: If they have no group of their own.
    """
    for group in runner.optim_wrapper.optimizer.param_groups:
        if STRUCTURE_LR in group:
            return group[STRUCTURE_LR]
    raise DMSError(
        '`ResourceHook.soft_landing` needs the group of '
        'DMSOptimWrapperConstructor in the optimizer.'
    )


def unit_steps(mutator: DMSMutator, kind: str, lr: float) -> Tensor:
    """Change of log r by one step, lr · gradient, on the resource loss.

    The gradient of L_r = log(r / r_t) does not depend on the distance to
    the target: a step changes log r by lr · λ_r · |∂ log r / ∂a|², and the
    gradient grows as the network shrinks. A stage's largest one is at a
    block that is half kept.

    Args:
        mutator (DMSMutator): During a search.
        kind (str): A constrained resource.
        lr (float): Learning rate of the structure times λ_r.

    Returns:
        Tensor: Parts of the width units, then of the depth units, float64,
        shape [U]; 0 where a unit is held or cannot be pruned further.
    """
    topk = mutator.topk
    log = mutator.table.soft(kind).log()
    (grad,) = torch.autograd.grad(log, topk.pruning_ratio)
    free = topk.pruning_ratio.detach() < topk.layout.upper
    return lr * grad.double().square() * free


def largest_step(mutator: DMSMutator, kind: str, lr: float) -> float:
    """The sum of :func:`unit_steps`. Synchronizes with the host.

    Args:
        mutator (DMSMutator): During a search.
        kind (str): A constrained resource.
        lr (float): Learning rate of the structure times λ_r.
    """
    return float(unit_steps(mutator, kind, lr).sum())


def overshoot_warnings(
    mutator: DMSMutator,
    weights: Mapping[str, float],
    lr: float,
    targets: Mapping[str, float],
) -> Dict[str, str]:
    """Warnings of steps that may end far below a target.

    Args:
        mutator (DMSMutator): During a search.
        weights (Mapping[str, float]): Weights λ_r by kind.
        lr (float): Learning rate of the structure.
        targets (Mapping[str, float]): Present ones, absolute. A kind that
            is below its own by more than two steps makes none: another
            target, or the task loss, holds it there.

    Returns:
        dict[str, str]: One line for each kind whose steps are too large.
    """
    warnings = {}
    for kind, weight in weights.items():
        steps = unit_steps(mutator, kind, lr * weight).tolist()
        step = sum(steps)
        below = math.log(targets[kind] / mutator.resource(kind, hard=False))
        if step > max(MUCH, below / 2):
            factor = math.ceil(10 * step / MUCH) / 10
            warnings[kind] = (
                f'One step of the resource loss changes the {kind} by '
                f'{step:.1%} now ({_parts(mutator, steps)}), and the search '
                f'may end as far below its target: lower {LR} or {WEIGHT} by '
                f'a factor of {factor:.1f}, or set '
                '`ResourceHook.soft_landing=True`.'
            )
    return warnings


def _parts(mutator: DMSMutator, steps: List[float]) -> str:
    """What a step is made of, without what hardly counts."""
    number = len(mutator.units)
    parts = {'widths': sum(steps[:number])}
    for stage, step in zip(mutator.depth_units, steps[number:]):
        parts[f'depth of {stage.name}'] = step
    names = sorted(parts, key=lambda name: -parts[name])[:3]
    return ', '.join(
        f'{name} {parts[name]:.1%}'
        for name in names
        if parts[name] > 0.1 * sum(steps)
    )
