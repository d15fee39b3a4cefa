"""Loss scales of mixed precision: what gradients carry, skipped steps."""

from typing import Any, Optional

import torch
from torch import Tensor
from torch.optim import Optimizer


class StepCounter:
    """Tells whether an optimizer has stepped, whatever the loss scale does.

    A scaler skips the step of an overflow and lowers its scale, but a static
    scale does not move, and mmengine resets one. Does not synchronize.

    Args:
        optimizer (Optimizer): Of the weights.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        # Before torch 2 there are no such hooks; a fused optimizer steps
        # always and decides on the device.
        self.works = hasattr(optimizer, 'register_step_post_hook') and not (
            getattr(optimizer, '_step_supports_amp_scaling', False)
        )
        self._stepped = False
        if self.works:
            optimizer.register_step_post_hook(self._note)

    def _note(self, *_: Any) -> None:
        self._stepped = True

    def skipped(self) -> bool:
        """Whether there was no step since the last call."""
        skipped = self.works and not self._stepped
        self._stepped = False
        return skipped


def scale_of(scaler: Any, like: Tensor) -> Tensor:
    """The scale of a ``GradScaler`` as a tensor, without synchronization.

    Args:
        scaler (GradScaler): It may be disabled.
        like (Tensor): A tensor on the device of the model.
    """
    return scaler.scale(like.new_ones(()))


def step_scale(
    before: Optional[Tensor], after: Optional[Tensor], skipped: bool
) -> Optional[Tensor]:
    """Loss scale of a step; NaN if the scaler has skipped the step.

    The gradients of the masks can be finite when those of a weight are
    not; a skipped step must not count for the structure either.

    Args:
        before (Tensor, optional): Scale of the backward pass; None without
            a scaler.
        after (Tensor, optional): Scale after the scaler's update.
        skipped (bool): Whether the optimizer is known not to have stepped.
    """
    if before is None or after is None:
        return None
    nothing = torch.full_like(before, float('nan'))
    if skipped:
        return nothing
    return torch.where(after < before, nothing, before)
