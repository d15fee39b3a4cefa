"""Masks and the affine part of a layer norm multiplied into a linear layer.

A linear layer that reads a layer norm sees ``m ⊙ (s ⊙ x + t)`` with the mask
m of the features, the scale s and the shift t of the norm. With a mask r of
its own outputs it computes

    r ⊙ (W (m ⊙ (s ⊙ x + t)) + b) = W' x + b',
    W' = r[:, None] ⊙ W ⊙ (m ⊙ s),  b' = r ⊙ (b + W (m ⊙ t)),

so that three passes over the activations of the norm cost O(weights).
"""

from typing import Any, Optional, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Gradients = Tuple[Optional[Tensor], ...]


def fold_norm(
    weight: Tensor,
    bias: Optional[Tensor],
    inputs: Tensor,
    scale: Tensor,
    shift: Optional[Tensor] = None,
    outputs: Optional[Tensor] = None,
) -> Tuple[Tensor, Optional[Tensor]]:
    """Weight and bias of a linear layer that reads the norm without them.

    Args:
        weight (Tensor): [out, in].
        bias (Tensor, optional): [out].
        inputs (Tensor): Mask of the norm's features [in].
        scale (Tensor): Of the norm [in].
        shift (Tensor, optional): Of the norm [in]. Defaults to None.
        outputs (Tensor, optional): Mask [out]. Defaults to None.

    Returns:
        tuple[Tensor, Tensor | None]: W' [out, in] and b' [out], which is
        None without a bias and a shift. Of the weight's type.
    """
    low = weight.dtype
    full = torch.promote_types(low, inputs.dtype)
    if low != full:  # weights in half precision: masks stay in single
        tensors = (weight, bias, inputs, scale, shift, outputs)
        folded = fold_norm(*(t if t is None else t.to(full) for t in tensors))
        return tuple(t if t is None else t.to(low) for t in folded)
    if shift is None:
        weight = _FoldNorm.apply(weight, None, inputs, scale, None, outputs)[0]
        if bias is not None and outputs is not None:
            bias = bias * outputs
        return weight, bias
    return _FoldNorm.apply(weight, bias, inputs, scale, shift, outputs)


class _FoldNorm(torch.autograd.Function):
    """W' and b' in as few passes over the weight as there can be.

    Autograd would make a gradient of the weight for each place where it
    occurs, and add them up. Products with vectors write into memory given
    to them, as autocast would compute others in half precision.
    """

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        bias: Optional[Tensor],
        inputs: Tensor,
        scale: Tensor,
        shift: Optional[Tensor],
        outputs: Optional[Tensor],
    ) -> Tuple[Tensor, Optional[Tensor]]:
        folded = weight * (inputs * scale)
        moved = None
        if shift is not None:
            moved = _matvec(weight, inputs * shift)
            moved = moved if bias is None else moved.add_(bias)
        ctx.save_for_backward(weight, inputs, scale, shift, outputs, moved)
        if outputs is not None:
            folded.mul_(outputs[:, None])
            moved = None if moved is None else moved * outputs
        elif moved is not None:
            # What is kept must not be what is given away.
            moved = moved.view_as(moved)
        return folded, moved

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor, grad_moved: Optional[Tensor]
    ) -> Gradients:
        """Gradients of all six arguments."""
        weight, inputs, scale, shift, outputs, moved = ctx.saved_tensors
        columns = inputs * scale
        buffer = grad * weight
        grad_outputs = None
        if outputs is None:
            along = buffer.sum(0)
        else:
            along = _matvec(buffer.t(), outputs)
            grad_outputs = _matvec(buffer, columns)
        if shift is not None and outputs is not None:
            grad_outputs.addcmul_(grad_moved, moved)
            grad_moved = grad_moved * outputs
        grad_inputs, grad_scale = along * scale, along * inputs
        grad_shift = None
        if shift is not None:
            along = _matvec(weight.t(), grad_moved)
            grad_inputs.addcmul_(along, shift)
            grad_shift = along * inputs
        grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_weight = torch.mul(grad, columns, out=buffer)
            if outputs is not None:
                grad_weight.mul_(outputs[:, None])
            if shift is not None:
                grad_weight.addr_(grad_moved, inputs * shift)
        return (
            grad_weight,
            grad_moved if ctx.needs_input_grad[1] else None,
            grad_inputs,
            grad_scale,
            grad_shift,
            grad_outputs,
        )


def _matvec(matrix: Tensor, vector: Tensor) -> Tensor:
    """matrix @ vector in their own precision, under autocast, too."""
    result = vector.new_empty(matrix.shape[0])
    return torch.mv(matrix, vector, out=result)
