"""How far one step of the resource loss can fall below its target."""

from typing import Iterator, Mapping

import torch
from mmengine.runner import Runner

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


def largest_step(mutator: DMSMutator, kind: str, lr: float) -> float:
    """Change of log r by one step, lr · gradient, on the resource loss.

    The gradient of L_r = log(r / r_t) does not depend on the distance to
    the target: a step changes log r by lr · λ_r · |∂ log r / ∂a|², and the
    gradient grows as the network shrinks.

    Args:
        mutator (DMSMutator): During a search.
        kind (str): A constrained resource.
        lr (float): Learning rate of the structure times λ_r.
    """
    ratio = mutator.topk.pruning_ratio
    log = mutator.table.soft(kind).log()
    (grad,) = torch.autograd.grad(log, ratio)
    return lr * float(grad.double().square().sum())


def overshoot_warnings(
    mutator: DMSMutator, weights: Mapping[str, float], lr: float
) -> Iterator[str]:
    """Warnings of steps that may end far below a target.

    Args:
        mutator (DMSMutator): During a search.
        weights (Mapping[str, float]): Weights λ_r by kind.
        lr (float): Learning rate of the structure.
    """
    for kind, weight in weights.items():
        step = largest_step(mutator, kind, lr * weight)
        if step > MUCH:
            yield (
                f'One step of the resource loss changes the {kind} by '
                f'{step:.1%} now, and the search may end as far below its '
                f'target: lower {LR} or {WEIGHT}, or set '
                '`ResourceHook.soft_landing=True`.'
            )
