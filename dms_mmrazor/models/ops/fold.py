"""Masks multiplied into weights instead of activations.

A convolution or linear layer is linear in its input, so

    conv(x ⊙ m, W) = conv(x, W ⊙ m[None, :, None, None]),

with the same output and the same gradient for m. The right-hand side costs
O(weights), and no second activation is kept for the backward pass.
"""

from typing import Optional, Tuple

from torch import Tensor


def fold_input_mask(weight: Tensor, mask: Tensor, groups: int = 1) -> Tensor:
    """Multiply a mask of the input channels into a weight.

    Args:
        weight (Tensor): [out, in / groups, ...] of a conv or linear layer.
        mask (Tensor): [in].
        groups (int): Groups of the convolution. Defaults to 1.

    Returns:
        Tensor: The weight that sees ``x`` as the layer would see ``m ⊙ x``.
    """
    trailing = (1,) * (weight.dim() - 2)
    if groups == 1:
        return weight * mask.view(1, -1, *trailing)
    per_group = mask.view(groups, 1, -1)
    rows = per_group.expand(-1, weight.size(0) // groups, -1)
    return weight * rows.reshape(weight.size(0), -1, *trailing)


def fold_output_mask(
    weight: Tensor, bias: Optional[Tensor], mask: Tensor
) -> Tuple[Tensor, Optional[Tensor]]:
    """Multiply a mask of the output channels into a layer.

    Args:
        weight (Tensor): [out, ...].
        bias (Tensor, optional): [out].
        mask (Tensor): [out].

    Returns:
        tuple: Weight and bias of the layer with the output ``m ⊙ y``.
    """
    trailing = (1,) * (weight.dim() - 1)
    return (
        weight * mask.view(-1, *trailing),
        None if bias is None else bias * mask,
    )


def fold_depth(
    weight: Tensor, bias: Optional[Tensor], mask: Tensor
) -> Tuple[Tensor, Optional[Tensor]]:
    """Multiply a block's depth mask into its last affine layer.

    Args:
        weight (Tensor): Weight of the layer that ends the residual branch.
        bias (Tensor, optional): Its bias.
        mask (Tensor): 0-dim mask of the block, x + m · f(x).

    Returns:
        tuple: Weight and bias of m · f.
    """
    return weight * mask, None if bias is None else bias * mask
