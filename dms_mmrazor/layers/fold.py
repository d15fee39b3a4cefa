"""Masks multiplied into weights instead of activations.

A convolution or linear layer is linear in its input, so

    conv(x ⊙ m, W) = conv(x, W ⊙ m[None, :, None, None]),

with the same output and the same gradient for m. The right-hand side costs
O(weights), and no second activation is kept for the backward pass. Folded
weights have the type of the weight: with weights in half precision, too,
masks and their gradients stay in single precision.
"""

from typing import Any, Optional, Tuple

import torch
from torch import Tensor

from dms_mmrazor.models.mutables import LayerMasks

Folded = Tuple[Tensor, Optional[Tensor]]

# Elements times positions of a kernel, up to which calling Python in the
# backward pass costs more than what it saves in memory traffic: measured on
# a CPU with one and two threads.
_SMALL = 400_000


def fold_masks(
    weight: Tensor,
    bias: Optional[Tensor],
    masks: LayerMasks,
    groups: int = 1,
    transposed: bool = False,
) -> Folded:
    """Multiply all masks of a conv or linear layer into its parameters.

    Args:
        weight (Tensor): [out, in / groups, ...].
        bias (Tensor, optional): [out].
        masks (LayerMasks): Of its inputs, its outputs and its block.
        groups (int): Groups of the convolution. Defaults to 1.
        transposed (bool): Whether the weight is [in, out / groups, ...], as
            that of a transposed convolution. Defaults to False.

    Returns:
        tuple[Tensor, Tensor | None]: Weight and bias of the layer that maps
        ``x`` to ``depth · outputs ⊙ layer(inputs ⊙ x)``.
    """
    inputs, outputs, depth = masks.inputs, masks.outputs, masks.depth
    if inputs is None and outputs is None:
        return (
            (weight, bias)
            if depth is None
            else fold_depth(weight, bias, depth)
        )
    if depth is not None and not masks.carried:
        # A factor of the small mask costs nothing, one of the weight does.
        if inputs is not None:
            inputs = inputs * depth
        else:
            outputs = outputs * depth
    if bias is not None and outputs is not None:
        bias = bias * outputs.to(bias.dtype)
    if bias is not None and depth is not None and inputs is not None:
        bias = bias * depth.to(bias.dtype)
    columns, rows = (outputs, inputs) if transposed else (inputs, outputs)
    if rows is None and _is_small(weight, columns, groups):
        weight = weight * columns.view(-1, *[1] * (weight.dim() - 2))
    else:
        weight = _Fold.apply(weight, columns, rows, groups)
    return weight, bias


def _is_small(weight: Tensor, columns: Tensor, groups: int) -> bool:
    """Whether autograd's own product with a mask of columns is faster."""
    if groups != 1 or weight.dtype != columns.dtype:
        return False
    return weight.numel() * weight.shape[2:].numel() <= _SMALL


def fold_input_mask(weight: Tensor, mask: Tensor, groups: int = 1) -> Tensor:
    """Multiply a mask of the input channels into a weight.

    Args:
        weight (Tensor): [out, in / groups, ...] of a conv or linear layer.
        mask (Tensor): [in].
        groups (int): Groups of the convolution. Defaults to 1.

    Returns:
        Tensor: The weight that sees ``x`` as the layer would see ``m ⊙ x``.
    """
    return fold_masks(weight, None, LayerMasks(mask), groups)[0]


def fold_depth(weight: Tensor, bias: Optional[Tensor], mask: Tensor) -> Folded:
    """Multiply a block's depth mask into its last affine layer.

    Args:
        weight (Tensor): Weight of the layer that ends the residual branch.
        bias (Tensor, optional): Its bias.
        mask (Tensor): 0-dim mask of the block, x + m · f(x).

    Returns:
        tuple: Weight and bias of m · f.
    """
    weight = weight * mask.to(weight.dtype)
    return weight, None if bias is None else bias * mask.to(bias.dtype)


class _Fold(torch.autograd.Function):
    """weight ⊙ masks of its columns and rows, inputs and outputs mostly.

    Written out for large weights and several masks, because autograd would
    keep a product of the weight's size for each further mask, and because
    products with a matrix in the order of the memory, into memory that is
    there already, take a third of the time on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        columns: Optional[Tensor],
        rows: Optional[Tensor],
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(weight, columns, rows)
        ctx.order = order = _Order(weight, groups)
        folded, buffer = order.matrix(weight), None
        if columns is not None:
            folded = buffer = folded * order.along_columns(columns)
        if rows is not None:
            folded = torch.mul(folded, order.along_rows(rows), out=buffer)
        return order.weight(folded)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        """Gradients of the weight and of both masks."""
        weight, column_mask, row_mask = ctx.saved_tensors
        order: _Order = ctx.order
        grad = order.matrix(grad)
        product = grad * order.matrix(weight)
        columns = rows = grad_columns = grad_rows = grad_weight = None
        if column_mask is not None:
            columns = order.along_columns(column_mask)
        if row_mask is not None:
            rows = order.along_rows(row_mask)
        if ctx.needs_input_grad[1]:
            seen = product if rows is None else product * rows
            grad_columns = order.sum_rows(seen, column_mask.dtype)
        if ctx.needs_input_grad[2]:
            seen = product if columns is None else product * columns
            grad_rows = order.sum_columns(seen, row_mask.dtype)
        if ctx.needs_input_grad[0]:
            # Memory of this size is expensive to get: reuse the product's,
            # unless this backward pass is to be differentiated itself.
            buffer = None if torch.is_grad_enabled() else product
            for factor in (columns, rows):
                if factor is not None:
                    grad = torch.mul(grad, factor, out=buffer)
            grad_weight = order.weight(grad)
        return grad_weight, grad_columns, grad_rows, None


class _Order:
    """A weight as matrices [groups, rows, columns], as it lies in memory.

    Contiguous weights are rows of outputs, with the positions of the kernel
    among the columns; channels-last ones have these among the rows. Without
    groups it is one matrix [rows, columns].

    Args:
        weight (Tensor): [out, in / groups, ...]; or, with inputs as rows and
            outputs as columns, [in, out / groups, ...].
        groups (int): Groups of the convolution.
    """

    __slots__ = ('shape', 'dtype', 'leading', 'columns', 'last', 'times')

    def __init__(self, weight: Tensor, groups: int) -> None:
        self.shape = weight.shape
        self.dtype = weight.dtype
        self.leading = () if groups == 1 else (groups,)
        self.last = (
            weight.dim() == 4
            and not weight.is_contiguous()
            and weight.is_contiguous(memory_format=torch.channels_last)
        )
        positions = self.shape[2:].numel()
        # How often an output is repeated among the rows, an input among
        # the columns.
        self.times = (positions, 1) if self.last else (1, positions)
        self.columns = self.shape[1] * self.times[1]

    def matrix(self, weight: Tensor) -> Tensor:
        """[groups, rows, columns] of a tensor like the weight."""
        if weight.dim() == 2 and not self.leading:
            return weight
        if self.last:
            weight = weight.permute(0, 2, 3, 1)
        return weight.reshape(*self.leading, -1, self.columns)

    def weight(self, matrix: Tensor) -> Tensor:
        """The other way round."""
        if self.last:
            out, inputs, height, width = self.shape
            matrix = matrix.view(out, height, width, inputs)
            return matrix.permute(0, 3, 1, 2)
        return matrix.view(self.shape)

    def along_columns(self, mask: Tensor) -> Tensor:
        """Mask of the inputs [in] as [groups, 1, columns]."""
        mask = _repeat(mask.to(self.dtype), self.times[1])
        return mask.view(*self.leading, 1, -1) if self.leading else mask

    def along_rows(self, mask: Tensor) -> Tensor:
        """Mask of the outputs [out] as [groups, rows, 1]."""
        mask = _repeat(mask.to(self.dtype), self.times[0])
        return mask.view(*self.leading, -1, 1)

    def sum_rows(self, matrix: Tensor, dtype: torch.dtype) -> Tensor:
        """Sum over all that an input channel is multiplied with: [in]."""
        dtype = torch.promote_types(self.dtype, dtype)
        return _sum_repeated(matrix.sum(-2, dtype=dtype), self.times[1])

    def sum_columns(self, matrix: Tensor, dtype: torch.dtype) -> Tensor:
        """Sum over all that an output channel is made of: [out]."""
        dtype = torch.promote_types(self.dtype, dtype)
        return _sum_repeated(matrix.sum(-1, dtype=dtype), self.times[0])


def _repeat(mask: Tensor, times: int) -> Tensor:
    """Each element several times; without synchronization, on any torch."""
    if times == 1:
        return mask
    return mask.view(-1, 1).expand(-1, times).reshape(-1)


def _sum_repeated(values: Tensor, times: int) -> Tensor:
    """Undo :func:`_repeat` in a backward pass."""
    if times == 1:
        return values.flatten()
    return values.view(-1, times).sum(1)
