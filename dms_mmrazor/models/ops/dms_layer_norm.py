"""LayerNorm whose statistics are those of the kept features."""

from typing import Any, Dict, Optional, Set, Tuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dms_mmrazor.models.ops.dms_op import DMSOp
from dms_mmrazor.models.ops.fold import fold_depth
from dms_mmrazor.registry import MODELS


def masked_layer_norm(
    x: Tensor,
    mask: Tensor,
    weight: Optional[Tensor],
    bias: Optional[Tensor],
    eps: float,
) -> Tensor:
    """LayerNorm with statistics weighted by a mask of the features.

    ``mean = Σ m x / Σ m`` and ``var = Σ m (x − mean)² / Σ m``: for a 0/1
    mask the statistics of the kept features alone, so those come out as
    from the LayerNorm of an exported model. Features with mask 0 come out
    normalized too; the layers that read them multiply them by the mask.

    Args:
        x (Tensor): [..., N].
        mask (Tensor): [N].
        weight (Tensor, optional): [N].
        bias (Tensor, optional): [N].
        eps (float): Added to the variance.

    Returns:
        Tensor: [..., N], at least of the mask's precision.
    """
    x = x.to(torch.promote_types(x.dtype, mask.dtype))
    share = mask / mask.sum()
    return _WeightedNorm.apply(x, share, weight, bias, eps)


class _WeightedNorm(torch.autograd.Function):
    """Normalize by shares of the features that sum to one; scale and shift.

    Written out, because autograd would keep six tensors of the size of the
    activation for its backward pass; this one keeps one, as the plain layer
    does. In few passes over memory, which are what it costs, and without
    products of matrices, which autocast would compute in half precision.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        share: Tensor,
        weight: Optional[Tensor],
        bias: Optional[Tensor],
        eps: float,
    ) -> Tensor:
        out = x - (x * share).sum(-1, keepdim=True)
        var = out.square().mul_(share).sum(-1, keepdim=True)
        rstd = (var + eps).rsqrt_()
        out.mul_(rstd)
        ctx.save_for_backward(out, share, rstd, weight)
        if weight is None:
            return out.clone()
        return (
            out * weight if bias is None else torch.addcmul(bias, out, weight)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        """Gradients of x, the shares, the weight and the bias.

        The shares' one lacks a summand that is the same for all features;
        it vanishes in ``mask / mask.sum()``.
        """
        out, share, rstd, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        grad_share = grad_weight = grad_bias = None
        if wanted[3]:
            grad_bias = _sum_rows(grad)
        along = grad * out
        if weight is not None:
            grad_weight = _sum_rows(along) if wanted[2] else None
            along.mul_(weight)
            grad = grad * weight
        along = along.sum(-1, keepdim=True)
        total = grad.sum(-1, keepdim=True)
        shift = (out * (0.5 * along)).add_(total)
        if wanted[1]:
            grad_share = _sum_rows(shift * out).neg_()
        shift = shift.mul_(2).sub_(total)  # total + along · out
        grad_x = (grad - shift.mul_(share)).mul_(rstd)
        return grad_x, grad_share, grad_weight, grad_bias, None


def _sum_rows(x: Tensor) -> Tensor:
    """Sum over all dimensions but the last: [N]."""
    return x.flatten(0, -2).sum(0)


@MODELS.register_module()
class DMSLayerNorm(nn.LayerNorm, DMSOp):
    """``nn.LayerNorm`` over the last dimension, with masked features."""

    accepted_mutable_attrs: Set[str] = {'num_features'}
    attr_mappings: Dict[str, str] = {
        'in_channels': 'num_features',
        'out_channels': 'num_features',
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_masks()

    @property
    def num_features(self) -> int:
        """Number of features."""
        return self.normalized_shape[-1]

    def forward(self, input: Tensor) -> Tensor:
        """Normalize [..., N]."""
        return self.normalize(input)

    def normalize(self, x: Tensor) -> Tensor:
        """Normalize [..., N] with the masks of this step."""
        weight, bias = self.weight, self.bias
        depth = None if self.depth is None else self.depth.mask
        if depth is not None and weight is not None:
            weight, bias = fold_depth(weight, bias, depth)
        container = self.get_mutable_attr('in_channels')
        mask = None if container is None else container.mask
        if mask is None:
            shape = self.normalized_shape
            out = F.layer_norm(x, shape, weight, bias, self.eps)
        else:
            out = masked_layer_norm(x, mask, weight, bias, self.eps)
        return out * depth if weight is None and depth is not None else out
