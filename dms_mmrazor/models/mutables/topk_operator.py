"""One operator of the flat top-k, as a mutable sees it."""

from typing import Any, Optional, Tuple

from torch import Tensor

from dms_mmrazor.core import FlatTopk
from dms_mmrazor.models.mutables.mask_plan import MaskPlan


class MaskTable:
    """The masks of this step, computed once for all layers.

    ``masks``, one per operator, is ``None`` while everything is kept, so
    that a supernet that nobody searches runs exactly as the plain model.
    Copies start empty: masks belong to the autograd graph of one step.

    Attributes:
        soft (Tensor, optional): Soft masks [C] of a training step with the
            graph that leads to the pruning ratios; the layers' masks are a
            leaf of their own. None between steps.
        plan (MaskPlan, optional): Who gives the layers their masks; layers
            without a plan compose theirs of ``masks``. Defaults to None.
    """

    def __init__(self, plan: Optional[MaskPlan] = None) -> None:
        self.masks: Optional[Tuple[Tensor, ...]] = None
        self.flat: Optional[Tensor] = None
        self.soft: Optional[Tensor] = None
        self.plan = plan

    def show(self, flat: Optional[Tensor], topk: FlatTopk) -> None:
        """Give the layers masks, or none.

        Args:
            flat (Tensor, optional): Masks of all operators [C].
            topk (FlatTopk): The operators.
        """
        self.flat = flat
        self.masks = None if flat is None else topk.split(flat)
        if self.plan is not None:
            self.plan.fill(flat, self.masks)

    def __reduce__(self) -> Tuple[Any, ...]:
        return MaskTable, (self.plan,)


class TopkOperator:
    """Handle of operator ``index`` of a :class:`FlatTopk`.

    A plain object, not a module: parameters and buffers stay registered
    once, in the mutator.

    Args:
        topk (FlatTopk): All operators of the search.
        table (MaskTable): Where the masks of the current step are.
        index (int): Which operator this is.
    """

    def __init__(self, topk: FlatTopk, table: MaskTable, index: int) -> None:
        self.topk = topk
        self.table = table
        self.index = index

    @property
    def mask(self) -> Optional[Tensor]:
        """Mask [N] of the current step; ``None``: everything is kept."""
        masks = self.table.masks
        return None if masks is None else masks[self.index]

    @property
    def hard_mask(self) -> Tensor:
        """bool [N]: what would be kept if the search ended now."""
        return self.topk.split(self.topk.hard_mask())[self.index]

    @property
    def kept(self) -> int:
        """Number of channels (blocks) that :attr:`hard_mask` keeps."""
        return int(self.topk.hard_kept()[self.index])

    def set_kept(self, kept: int) -> None:
        """Choose the pruning ratio that keeps exactly ``kept``."""
        self.topk.set_kept_(self.index, kept)
        hard = self.topk.hard_mask().to(self.topk.importance.dtype)
        self.table.show(hard, self.topk)
