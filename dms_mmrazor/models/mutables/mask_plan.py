"""The masks of one layer, and those of all in a handful of operations."""

from typing import Any, Dict, NamedTuple, Optional, Sequence

import torch
from torch import Tensor, nn


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


class PlannedMask(NamedTuple):
    """One mask of one layer, as products of elements of the flat masks.

    Attributes:
        masks (LayerMasks): The layer's.
        name (str): Which of them: 'inputs', 'outputs' or 'depth'.
        factors (Tensor): Where the factors of its N elements are in the
            flat masks, int64 [F, N]; C, their length, means 1.
        operator (int, optional): The operator whose mask it is as a whole.
    """

    masks: LayerMasks
    name: str
    factors: Tensor
    operator: Optional[int]


class MaskPlan(nn.Module):
    """Who reads which masks, found out once.

    The masks along a layer are those of one operator, or gathered from
    several (concatenations, repetitions), or products (heads times head
    dims, channels times depth). One gather and F - 1 products of flat
    tensors make all of them, instead of several operations per layer, in
    the forward and in the backward pass.

    Args:
        planned (Sequence[PlannedMask]): All masks of all layers.
        size (int): Length C of the flat masks.
    """

    index: Tensor

    def __init__(self, planned: Sequence[PlannedMask], size: int) -> None:
        super().__init__()
        self.whole = [p for p in planned if p.operator is not None]
        self.products = [p for p in planned if p.operator is None]
        self.lengths = [p.factors.shape[1] for p in self.products]
        depth = max((len(p.factors) for p in self.products), default=1)
        index = torch.full((depth, sum(self.lengths)), size)
        parts = index.split(self.lengths, dim=1) if self.products else ()
        for part, planned_mask in zip(parts, self.products):
            part[: len(planned_mask.factors)] = planned_mask.factors
        self.register_buffer('index', index, persistent=False)

    def fill(
        self, flat: Optional[Tensor], masks: Optional[Sequence[Tensor]]
    ) -> None:
        """Give all layers their masks of this step, or none.

        Args:
            flat (Tensor, optional): Masks of all operators [C].
            masks (Sequence[Tensor], optional): The same, one by one.
        """
        for planned in self.whole:
            mask = None if masks is None else masks[planned.operator]
            setattr(planned.masks, planned.name, mask)
        for planned, mask in zip(self.products, self._multiply(flat)):
            setattr(planned.masks, planned.name, mask)

    def _multiply(self, flat: Optional[Tensor]) -> Sequence[Optional[Tensor]]:
        """The products, one by one."""
        if flat is None or not self.products:
            return [None] * len(self.products)
        factors = torch.cat([flat, flat.new_ones(1)])[self.index].unbind()
        product = factors[0]
        for factor in factors[1:]:
            product = product * factor
        return product.split(self.lengths)
