"""LayerNorm whose statistics are those of the kept features."""

from typing import Any, Dict, Optional, Set, Tuple

import torch
from torch import Tensor, nn
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
    out = _WeightedNorm.apply(x, share, eps)
    if weight is None:
        return out
    return out * weight if bias is None else torch.addcmul(bias, out, weight)


class _WeightedNorm(torch.autograd.Function):
    """(x − mean) / sqrt(var + eps), weights of the features sum to one.

    Written out, because autograd would keep five tensors of the size of the
    activation for its backward pass; this one keeps two.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Tensor, eps: float) -> Tensor:
        mean = (x * share).sum(-1, keepdim=True)
        centered = x - mean
        var = (centered.square() * share).sum(-1, keepdim=True)
        rstd = (var + eps).rsqrt()
        out = centered * rstd
        ctx.save_for_backward(out, share, rstd)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        """Gradients of x and of the shares.

        The shares' one lacks a summand that is the same for all features;
        it vanishes in ``mask / mask.sum()``.
        """
        out, share, rstd = ctx.saved_tensors
        total = grad.sum(-1, keepdim=True)
        along = (grad * out).sum(-1, keepdim=True)
        grad_x = grad_share = None
        if ctx.needs_input_grad[0]:
            grad_x = rstd * (grad - share * (total + out * along))
        if ctx.needs_input_grad[1]:
            each = out * total + 0.5 * out.square() * along
            grad_share = -each.flatten(0, -2).sum(0)
        return grad_x, grad_share, None


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
