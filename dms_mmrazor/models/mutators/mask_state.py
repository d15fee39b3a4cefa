"""The masks of a supernet during a search."""

from contextlib import contextmanager
from typing import Iterator, List, Optional, Sequence

import torch
from mmengine import dist
from torch import Tensor, nn

from dms_mmrazor.core import (
    METRICS,
    STATIC_METRICS,
    FlatTopk,
    KeepsPrecision,
)
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutables import MaskPlan, MaskTable, TopkOperator
from dms_mmrazor.models.mutators.plan_masks import plan_masks
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit

DEPTH_TEMPERATURE = 4.0


class MaskState(KeepsPrecision):
    """One flat top-k for all units, and the gradient of its masks.

    Args:
        units (Sequence[DMSChannelUnit]): Width units; temperature N, 4N
            for numbers of heads.
        stages (Sequence[DMSDepthUnit]): Depth units; temperature 4N
            (appendix A.1.1: few elements).
        metric (str): Importance metric. Defaults to 'taylor'.
        decay (float): Decay β of its moving average (Eq. 4). Defaults to
            0.99.

    Raises:
        DMSError: If the metric or the decay is not valid.
    """

    def __init__(
        self,
        units: Sequence[DMSChannelUnit],
        stages: Sequence[DMSDepthUnit],
        metric: str = 'taylor',
        decay: float = 0.99,
    ) -> None:
        super().__init__()
        known = (*METRICS, *STATIC_METRICS)
        if metric not in known or not 0 <= decay < 1:
            raise DMSError(
                f'`importance` needs a metric among {known} and a decay in '
                f'[0, 1), got metric={metric!r}, decay={decay}.'
            )
        self.metric = metric
        self.decay = decay
        self.num_units = len(units)
        self.table = MaskTable()
        self.layers: Optional[MaskPlan] = None
        self.topk = FlatTopk(
            [u.num_channels for u in units] + [s.num_blocks for s in stages],
            temperatures=[unit.temperature for unit in units]
            + [DEPTH_TEMPERATURE * s.num_blocks for s in stages],
            steps=[u.step for u in units] + [1] * len(stages),
            min_kept=[u.min_kept for u in units]
            + [s.min_blocks for s in stages],
            max_kept=[u.max_kept for u in units]
            + [s.max_blocks for s in stages],
        )
        self.topk.project_()
        channels = sum(u.num_channels for u in units)
        self.num_channels = channels
        total = channels + sum(s.num_blocks for s in stages)
        self.register_buffer('mask', torch.ones(total), persistent=False)
        self.register_buffer('mask_grad', torch.zeros(total), persistent=False)
        ratio = self.topk.pruning_ratio.detach().clone()
        self.register_buffer('ratio', ratio, persistent=False)
        for index, unit in enumerate([*units, *stages]):
            unit.bind(TopkOperator(self.topk, self.table, index))

    def plan(self, supernet: nn.Module) -> None:
        """Find out which masks the layers read, once they are attached.

        Args:
            supernet (nn.Module): The prepared supernet.
        """
        plan = plan_masks(supernet, self.table, self.topk.sizes)
        self.table.plan = self.layers = plan.to(self.mask.device)

    def use_soft_masks(self) -> None:
        """Give the layers the soft masks of this step (training)."""
        soft = self.topk.soft_mask()
        # The layers see a view, so that its gradient is the task loss's.
        mask = soft.view_as(soft)
        self.table.blocks = soft[self.num_channels :]
        self.mask.copy_(mask.detach())
        self.ratio.copy_(self.topk.pruning_ratio.detach())
        if mask.requires_grad:
            mask.register_hook(self._collect)
        self.table.show(mask, self.topk)

    def use_hard_masks(self) -> None:
        """Give the layers the masks of an export now (evaluation)."""
        mask = self.topk.hard_mask().to(self.mask.dtype)
        self.table.show(mask, self.topk)

    @contextmanager
    def showing(self, mask: Tensor) -> Iterator[None]:
        """Give the layers other masks [C] for a while."""
        before = self.table.flat
        self.table.show(mask.to(self.mask), self.topk)
        try:
            yield
        finally:
            with torch.enable_grad():
                self.table.show(before, self.topk)

    def use_no_masks(self) -> None:
        """Make the layers plain again."""
        self.table.show(None, self.topk)

    def _collect(self, grad: Tensor) -> None:
        self.mask_grad.add_(grad.detach())

    @torch.no_grad()
    def finish_step(
        self,
        grad_scale: Optional[Tensor] = None,
        scores: Optional[Tensor] = None,
    ) -> None:
        """Update importance and limits after an optimizer step.

        If the gradient was not finite, the optimizer's step on the pruning
        ratios is undone and the importance stays as it is. One collective:
        the gradient of all masks, averaged over ranks.

        Args:
            grad_scale (Tensor, optional): Loss scale of AMP that the
                gradients carry. Defaults to None.
            scores (Tensor, optional): Scores [C] of a static metric.
        """
        grad = self.mask_grad
        dist.all_reduce(grad, op='mean')
        if grad_scale is not None:
            grad = grad / grad_scale.to(grad)
        if scores is not None:
            self.topk.set_importance_(scores, check=False)
        self.topk.update_importance_(
            self.mask, grad, metric=self.metric, decay=self.decay
        )
        ratio = self.topk.pruning_ratio
        finite = torch.isfinite(grad).all() & torch.isfinite(ratio).all()
        ratio.copy_(torch.where(finite, ratio, self.ratio))
        self.topk.project_()
        self.mask_grad.zero_()

    def kept(self) -> Tensor:
        """Continuous widths [U] of the width units."""
        return self.topk.kept()[: self.num_units]

    def hard_kept(self) -> Tensor:
        """Exact widths int64 [U] of the width units."""
        return self.topk.hard_kept()[: self.num_units]

    def soft_blocks(self) -> Tensor:
        """Soft depth masks [B] of all removable blocks, differentiable."""
        return self.topk.soft_mask()[self.num_channels :]

    def hard_blocks(self) -> Tensor:
        """Hard depth masks [B], as floats."""
        return self.topk.hard_mask()[self.num_channels :].to(self.mask.dtype)

    def hold_depth(self) -> None:
        """Freeze the depth (refining phase, appendix A.1.2)."""
        self.topk.hold_(self._depth_operators())

    def _depth_operators(self) -> List[int]:
        return list(range(self.num_units, len(self.topk.sizes)))
