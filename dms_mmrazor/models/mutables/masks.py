"""The masks of a step: one flat tensor, and who reads which part of it."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from dms_mmrazor.core import FlatTopk


class LayerMasks:
    """What multiplies the parameters of a layer; ``None``: nothing.

    A plain object that a layer reads and the mask plan fills. Copies start
    empty, as masks belong to the autograd graph of one step.

    Args:
        inputs (Tensor, optional): Mask of the input channels [in].
        outputs (Tensor, optional): Mask of the output channels [out].
        depth (Tensor, optional): Mask of the block whose residual branch
            the layer ends, of one element.
        carried (bool): Whether ``inputs`` (without them ``outputs``) have
            been multiplied by ``depth``, so that only a bias still needs
            it. Defaults to False.
    """

    __slots__ = ('inputs', 'outputs', 'depth', 'carried')

    def __init__(
        self,
        inputs: Optional[Tensor] = None,
        outputs: Optional[Tensor] = None,
        depth: Optional[Tensor] = None,
        carried: bool = False,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.depth = depth
        self.carried = carried

    def __getstate__(self) -> Dict[str, Any]:
        return {'carried': self.carried}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__init__(**state)


def beside(parts: Sequence[Tensor]) -> Tensor:
    """Indices of channels behind one another; the shorter are times 1.

    Args:
        parts (Sequence[Tensor]): int64 [F_i, N_i], as of :class:`Places`.

    Returns:
        Tensor: int64 [max F_i, sum N_i].
    """
    factors = max((len(part) for part in parts), default=1)
    rows = [
        torch.cat([part, _nothing(factors - len(part), part.shape[1])])
        for part in parts
    ]
    return torch.cat([_nothing(factors, 0), *rows], dim=1)


def _nothing(factors: int, length: int) -> Tensor:
    return torch.full((factors, length), -1)


def multiplied(flat: Tensor, index: Tensor) -> Tensor:
    """Products of flat masks [C] by an index [F, N]: [N]."""
    # Behind the last mask is a 1, which is what -1 points to.
    factors = torch.cat([flat, flat.new_ones(1)])[index].unbind()
    product = factors[0]
    for factor in factors[1:]:
        product = product * factor
    return product


def _whole_operator(index: Tensor, sizes: Sequence[int]) -> Optional[int]:
    """The operator whose mask an index is as a whole, and as it is."""
    start = 0
    for operator, size in enumerate(sizes):
        if start == int(index[0, 0]):
            whole = torch.arange(start, start + size)[None]
            return operator if torch.equal(index, whole) else None
        start += size
    return None


class PlannedMask(NamedTuple):
    """One mask of one layer, as products of elements of the flat masks.

    Attributes:
        masks (LayerMasks): The layer's.
        name (str): Which of them: 'inputs', 'outputs' or 'depth'.
        index (Tensor): As of :class:`Places`, [F, N].
    """

    masks: LayerMasks
    name: str
    index: Tensor


class MaskPlan(nn.Module):
    """Who reads which masks, found out once.

    The masks along a layer are those of one operator, or gathered from
    several (concatenations, repetitions), or products (heads times head
    dims, channels times depth). One gather and F - 1 products of flat
    tensors make all of them, instead of several operations per layer, in
    the forward and in the backward pass.

    Args:
        planned (Sequence[PlannedMask]): All masks of all layers.
        sizes (Sequence[int]): Channels (blocks) of the operators.

    Attributes:
        whole (list): Pairs of a mask and the operator that it is as a
            whole, which needs no gather.
        products (list[PlannedMask]): All others.
    """

    index: Tensor

    def __init__(
        self, planned: Sequence[PlannedMask], sizes: Sequence[int]
    ) -> None:
        super().__init__()
        self.whole: List[Tuple[PlannedMask, int]] = []
        self.products: List[PlannedMask] = []
        for mask in planned:
            operator = _whole_operator(mask.index, sizes)
            if operator is None:
                self.products.append(mask)
            else:
                self.whole.append((mask, operator))
        index = beside([mask.index for mask in self.products])
        self.lengths = [mask.index.shape[1] for mask in self.products]
        self.register_buffer('index', index, persistent=False)

    @property
    def filled(self) -> List[LayerMasks]:
        """The masks of all layers that it fills."""
        both = [*(mask for mask, _ in self.whole), *self.products]
        return [mask.masks for mask in both]

    def fill(
        self, flat: Optional[Tensor], masks: Optional[Sequence[Tensor]]
    ) -> None:
        """Give all layers their masks of this step, or none.

        Args:
            flat (Tensor, optional): Masks of all operators [C].
            masks (Sequence[Tensor], optional): The same, one by one.
        """
        for planned, operator in self.whole:
            mask = None if masks is None else masks[operator]
            setattr(planned.masks, planned.name, mask)
        for planned, mask in zip(self.products, self._multiply(flat)):
            setattr(planned.masks, planned.name, mask)

    def _multiply(self, flat: Optional[Tensor]) -> Sequence[Optional[Tensor]]:
        """The products, one by one."""
        if flat is None or not self.products:
            return [None] * len(self.products)
        return multiplied(flat, self.index).split(self.lengths)


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


class Places(NamedTuple):
    """Where the masks of channels are among those of all operators.

    Whatever has masks (a mutable, a side of a layer, the heads of an
    attention) says so as it is attached.

    Attributes:
        table (MaskTable): Has the flat masks [C] of the current step.
        index (Tensor): int64 [F, N]; the mask of a channel is the product of
            its F places, of which -1 means 1.
    """

    table: MaskTable
    index: Tensor

    def read(self) -> Optional[Tensor]:
        """The masks [N] of the current step; ``None``: all are kept."""
        flat = self.table.flat
        return None if flat is None else multiplied(flat, self.index)


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
    def places(self) -> Places:
        """Where its masks are."""
        start = sum(self.topk.sizes[: self.index])
        end = start + self.topk.sizes[self.index]
        return Places(self.table, torch.arange(start, end)[None])

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
