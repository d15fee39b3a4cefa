"""Steps of the pruning ratios, the same with every optimizer."""

import functools
from types import MethodType
from typing import Any, Callable, List, Optional, Tuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from dms_mmrazor.engine.structure_group import structure_groups

_SCALES_ITSELF = '_step_supports_amp_scaling'


def use_plain_steps(optimizer: Optimizer) -> None:
    """Let an optimizer move pruning ratios by lr · gradient.

    The paper's update (section A.3.5). Steps of AdamW, RMSprop and their
    like have about the size lr whatever the gradient, so that the weight
    λ_r of a resource loss would mean nothing. The optimizer's own step does
    not see the gradients of the group that
    :func:`~dms_mmrazor.engine.structure_group.mark_structure_group` has
    marked, and keeps no state of it. Nothing synchronizes with the host.

    A copy or a pickle of the optimizer has its class's step again, as a
    torch optimizer never takes attributes along.

    Args:
        optimizer (Optimizer): Its ``step`` is replaced; a ``closure`` is
            called once.
    """
    weights_step = optimizer.step

    # Schedulers and loss scalers look at the step: it stays a method with
    # the signature it had.
    @functools.wraps(weights_step.__func__)
    def step(
        self: Optimizer,
        closure: Optional[Callable[[], Any]] = None,
        **kwargs: Any,
    ) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        taken = _move(self)
        try:
            weights_step(**kwargs)
        finally:
            for parameter, grad in taken:
                parameter.grad = grad
        return loss

    optimizer.step = MethodType(step, optimizer)
    if getattr(optimizer, _SCALES_ITSELF, False):
        # A loss scaler leaves its scale in the gradients for a fused step.
        # Without this it removes it and decides itself about the step.
        setattr(optimizer, _SCALES_ITSELF, False)


@torch.no_grad()
def _move(optimizer: Optimizer) -> List[Tuple[Tensor, Tensor]]:
    """Step of the pruning ratios; takes their gradients away."""
    taken = []
    for group in structure_groups(optimizer):
        for parameter in group['params']:
            if parameter.grad is not None:
                parameter.add_(parameter.grad, alpha=-group['lr'])
                taken.append((parameter, parameter.grad))
                parameter.grad = None
    return taken
