"""The masks of a supernet during a search."""

from contextlib import contextmanager
from typing import Dict, Iterator, List, Optional, Sequence

import torch
from mmengine import dist
from torch import Tensor, nn

from dms_mmrazor.baselines.masks import MASKS
from dms_mmrazor.core import (
    METRICS,
    STATIC_METRICS,
    FlatTopk,
    KeepsPrecision,
)
from dms_mmrazor.core.resource import Following
from dms_mmrazor.errors import DMSError
from dms_mmrazor.layers import DMSOp
from dms_mmrazor.models.mutables import MaskPlan, MaskTable, TopkOperator
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit

DEPTH_TEMPERATURE = 4.0

METHODS = {'dms': FlatTopk, **MASKS}
"""Mask parametrizations by the name that configs have for them."""


def check_method(method: str) -> str:
    """The name of a parametrization, if it is one.

    Raises:
        DMSError: If it is not.
    """
    if not isinstance(method, str) or method not in METHODS:
        raise DMSError(
            f'`mutator.method` must be one of {list(METHODS)}, got {method!r}.'
        )
    return method


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
        method (str): 'dms', or another mask parametrization of
            :data:`MASKS` to compare with. Defaults to 'dms'.

    Raises:
        DMSError: If the metric, the decay or the method is not valid.
    """

    def __init__(
        self,
        units: Sequence[DMSChannelUnit],
        stages: Sequence[DMSDepthUnit],
        metric: str = 'taylor',
        decay: float = 0.99,
        method: str = 'dms',
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
        self.method = check_method(method)
        self.num_units = len(units)
        self.has_gradient = False
        self.table = MaskTable()
        self.layers: Optional[MaskPlan] = None
        self.followings = find_followings(units)
        if self.followings and METHODS[method] is not FlatTopk:
            raise DMSError(
                f'`mutator.method={method!r}` has no units that follow '
                "another, which `channel_unit_cfg` has: use 'dms'."
            )
        self.topk = METHODS[method](
            [u.num_channels for u in units] + [s.num_blocks for s in stages],
            temperatures=[unit.temperature for unit in units]
            + [DEPTH_TEMPERATURE * s.num_blocks for s in stages],
            steps=[u.mask_step for u in units] + [1] * len(stages),
            min_kept=[u.min_kept for u in units]
            + [s.min_blocks for s in stages],
            max_kept=[u.max_kept for u in units]
            + [s.max_blocks for s in stages],
            leaders={u: f.leader for u, f in self.followings.items()},
        )
        # Ratios start at zero, which ``max_ratio`` may not allow.
        self.topk.project_()
        channels = sum(u.num_channels for u in units)
        self.num_channels = channels
        total = channels + sum(s.num_blocks for s in stages)
        self.register_buffer('mask', torch.ones(total), persistent=False)
        self.register_buffer('mask_grad', torch.zeros(total), persistent=False)
        for index, unit in enumerate([*units, *stages]):
            unit.bind(TopkOperator(self.topk, self.table, index))

    def plan(self, supernet: nn.Module) -> None:
        """Make the masks of all layers at once, now that they are attached.

        Args:
            supernet (nn.Module): The prepared supernet.
        """
        planned = [
            mask
            for layer in supernet.modules()
            if isinstance(layer, DMSOp)
            for mask in layer.plan_masks()
        ]
        plan = MaskPlan(planned, self.topk.sizes)
        self.table.plan = self.layers = plan.to(self.mask.device)

    def use_soft_masks(self) -> None:
        """Give the layers the soft masks of this step (training).

        The layers see a leaf: the network's graph ends there, and
        :meth:`ratio_gradient` goes on to the pruning ratios.
        """
        with torch.enable_grad():
            soft = self.topk.soft_mask()
            mask = soft.detach().requires_grad_()
        self.mask.copy_(mask.detach())
        # A sum, not `mask.grad`: a step may have several passes
        # (accumulation).
        mask.register_hook(self._collect)
        self.table.show(mask, self.topk)
        self.table.soft = soft

    def use_hard_masks(self) -> None:
        """Give the layers the masks of an export now (evaluation)."""
        mask = self.topk.hard_mask().to(self.mask.dtype)
        self.table.show(mask, self.topk)

    @contextmanager
    def showing(self, mask: Optional[Tensor]) -> Iterator[None]:
        """Give the layers other masks [C], or none, for a while."""
        before = self.table.flat
        other = None if mask is None else mask.to(self.mask)
        self.table.show(other, self.topk)
        try:
            yield
        finally:
            # These masks belong to the graph of a training step, whatever has
            # been shown in between without one.
            with torch.enable_grad():
                self.table.show(before, self.topk)

    def use_no_masks(self) -> None:
        """Make the layers plain again."""
        self.table.show(None, self.topk)

    def _collect(self, grad: Tensor) -> None:
        self.mask_grad.add_(grad.detach())
        self.has_gradient = True

    @torch.no_grad()
    def take_gradient(self, grad_scale: Optional[Tensor]) -> Tensor:
        """This rank's gradient of the masks since the last call, shape [C].

        Args:
            grad_scale (Tensor, optional): Loss scale of AMP that the
                gradients carry.
        """
        grad = self.mask_grad.clone()
        self.mask_grad.zero_()
        self.has_gradient = False
        return grad if grad_scale is None else grad / grad_scale.to(grad)

    @torch.no_grad()
    def reduce(
        self, averaged: Sequence[Tensor], shared: Sequence[Tensor]
    ) -> None:
        """Make ranks equal in one collective, in place.

        Sums on a GPU may differ in their last bit between ranks, and such
        differences would stay.

        Args:
            averaged (Sequence[Tensor]): They become the mean over ranks.
            shared (Sequence[Tensor]): Floating-point tensors that become
                those of the first rank.
        """
        ranks = dist.get_world_size()
        if ranks == 1:
            return
        main = dist.is_main_process()
        # A sum to which only the first rank adds is a broadcast.
        sent = [t if main else torch.zeros_like(t) for t in shared]
        flat = _pack([*(tensor / ranks for tensor in averaged), *sent])
        dist.all_reduce(flat, op='sum')
        _unpack(flat, [*averaged, *shared])

    def ratio_gradient(self, grad: Tensor) -> Tensor:
        """The same gradient with respect to what the top-k learns.

        Args:
            grad (Tensor): Of the masks of this step, shape [C].

        Raises:
            DMSError: If no training forward pass precedes.
        """
        if self.table.soft is None:
            raise DMSError(
                'a search step needs a training forward and backward pass '
                'before it.'
            )
        (learnable,) = self.topk.learnable()
        (result,) = torch.autograd.grad(
            self.table.soft, learnable, grad, retain_graph=True
        )
        return result

    @torch.no_grad()
    def update_importance(
        self, grad: Tensor, scores: Optional[Tensor] = None
    ) -> None:
        """Update importances after a step; it ends the step's masks.

        Args:
            grad (Tensor): Task's gradient of the masks, shape [C].
            scores (Tensor, optional): Scores [C] of a static metric.
        """
        if scores is not None:
            self.topk.set_importance_(scores, check=False)
        self.topk.update_importance_(
            self.mask, grad, metric=self.metric, decay=self.decay
        )
        self.table.soft = None

    @torch.no_grad()
    def broadcast(self, shared: Sequence[Tensor]) -> None:
        """Give all ranks the first one's tensors, in place."""
        if dist.get_world_size() > 1:
            flat = _pack(shared)
            dist.broadcast(flat)
            _unpack(flat, shared)

    def kept(self) -> Tensor:
        """Continuous widths [U] of the width units."""
        return self.topk.kept()[: self.num_units]

    def hard_kept(self) -> Tensor:
        """Exact widths int64 [U] of the width units."""
        return self.topk.hard_kept()[: self.num_units]

    def soft_blocks(self, shown: Optional[Tensor] = None) -> Tensor:
        """Soft depth masks [B] as the resource model sees them.

        Args:
            shown (Tensor, optional): Soft masks [C] of this step, if they
                are known already. Defaults to None.
        """
        return self.topk.expected_mask(shown)[self.num_channels :]

    def hard_blocks(self) -> Tensor:
        """Hard depth masks [B], as floats."""
        return self.topk.hard_mask()[self.num_channels :].to(self.mask.dtype)

    def hold_depth(self) -> None:
        """Freeze the depth (refining phase, appendix A.1.2)."""
        self.topk.hold_(self._depth_operators())

    @torch.no_grad()
    def release_depth(self) -> None:
        """Search the depth again, from the blocks that were held.

        Synchronizes.
        """
        operators = self._depth_operators()
        kept = self.topk.held_kept.tolist()
        for operator in operators:
            # Ratios moved while blocks were held; without this they would
            # jump.
            if self.topk.held[operator]:
                self.topk.set_kept_(operator, kept[operator])
        self.topk.release_()

    def _depth_operators(self) -> List[int]:
        return list(range(self.num_units, len(self.topk.sizes)))


def find_followings(units: Sequence[DMSChannelUnit]) -> Dict[int, Following]:
    """Units that follow another, by index.

    Raises:
        DMSError: If what one follows is no unit of the search, or follows
            another itself.
    """
    names = [unit.name for unit in units]
    found: Dict[int, Following] = {}
    for index, unit in enumerate(units):
        if not unit.follows:
            continue
        leader = unit.leader_name
        if leader not in names:
            raise DMSError(
                f'unit {unit.name}: `follows` names {leader!r}, which is no '
                f'searched unit; searched are {names}.'
            )
        other = names.index(leader)
        if units[other].follows:
            raise DMSError(
                f'unit {unit.name}: `follows` names {leader!r}, which '
                'follows another unit itself: name that one.'
            )
        sizes = units[other].num_channels, unit.num_channels
        found[index] = Following(other, *sizes, unit.mask_step)
    return found


def _pack(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _unpack(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy the parts of a flat tensor into tensors."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts):
        tensor.copy_(part.view_as(tensor))
