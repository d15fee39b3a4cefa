"""Activations that a search must know: of channels, or ending a branch."""

from typing import Any, Tuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dms_mmrazor.layers.dms_op import DMSOp
from dms_mmrazor.layers.kind import (
    LayerKind,
    PassingKind,
    register_kind,
)
from dms_mmrazor.registry import MODELS


class _ScaledSiLU(torch.autograd.Function):
    """depth · SiLU(x), keeping x alone, which the plain activation keeps.

    Autograd would keep SiLU(x) as well, a tensor of the size of the
    activation for each block, for the gradient of the mask.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, depth: Tensor) -> Tensor:
        ctx.save_for_backward(x, depth)
        return F.silu(x).mul_(depth.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, Tensor]:
        """Gradients of x and the mask, this one summed in its precision."""
        x, depth = ctx.saved_tensors
        product = F.silu(x).mul_(grad)
        grad_depth = product.sum(dtype=depth.dtype).view_as(depth)
        grad_x = torch.ops.aten.silu_backward(grad, x)
        return grad_x.mul_(depth.to(x.dtype)), grad_depth


# YOLO's blocks end in it: x + SiLU(norm(conv(...))).
@MODELS.register_module()
class DMSSiLU(DMSOp, nn.SiLU):
    """``nn.SiLU`` whose output is multiplied by a depth mask."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape."""
        depth = self.masks().depth
        if depth is None:
            return super().forward(input)
        return _ScaledSiLU.apply(input, depth)


@register_kind
class SiLUKind(LayerKind):
    """SiLU: any channels pass, but it may carry a depth mask."""

    types = (nn.SiLU,)
    masked = {nn.SiLU: DMSSiLU}
    mixes = False
    leaf = False


@register_kind
class PReLUKind(PassingKind):
    """PReLU with a slope for each channel."""

    types = (nn.PReLU,)
    vectors = ('weight',)

    def applies(self, layer: nn.Module) -> bool:
        """Not if all channels share one slope."""
        return layer.num_parameters > 1

    def channels(self, layer: nn.Module, is_input: bool) -> int:
        """Number of slopes."""
        return layer.num_parameters

    def acts_alone(self, layer: nn.Module) -> bool:
        """Each channel by itself."""
        return True

    def keep(self, layer: nn.Module, kept: Tensor) -> None:
        """Set its number of slopes."""
        layer.num_parameters = len(kept)
