"""timm's convolutions with standardized weights, and norms that activate.

A weight is standardized over all inputs of an output. In a supernet it is
over those that are kept, weighted by their mask, so that a hard mask gives
what the cut layer computes:

    mean = Σ m w / Σ m,  var = Σ m (w - mean)² / Σ m

over the inputs and positions of the kernel.
"""

from typing import Any, ClassVar, Optional, Tuple

import torch
from timm.layers.norm_act import GroupNorm1Act, LayerNormAct2d
from timm.layers.padding import pad_same
from timm.layers.std_conv import (
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    StdConv2d,
    StdConv2dSame,
)
from torch import Tensor, nn
from torch.nn import functional as F

from dms_mmrazor.layers.conv import ConvKind
from dms_mmrazor.layers.dms_op import DMSOp
from dms_mmrazor.layers.group_norm import DMSGroupNorm
from dms_mmrazor.layers.kind import (
    OUTPUTS,
    Entries,
    Indices,
    register_kind,
    register_masked,
    select,
)
from dms_mmrazor.layers.layer_norm import ChannelFirst
from dms_mmrazor.registry import MODELS


def standardized(
    weight: Tensor, mask: Optional[Tensor], groups: int, eps: float
) -> Tensor:
    """A weight with mean 0 and variance 1 over the kept inputs of an output.

    Args:
        weight (Tensor): [out, in / groups, ...].
        mask (Tensor, optional): Of the inputs [in]; None: all are kept.
        groups (int): Groups of the convolution.
        eps (float): Added to the variance.

    Returns:
        Tensor: Like the weight. What is not kept is not zero.
    """
    rows = weight.flatten(2)  # [out, in / groups, positions]
    if mask is None:
        var, mean = torch.var_mean(rows, (1, 2), unbiased=False, keepdim=True)
    else:
        share = mask.to(weight.dtype).view(groups, -1, 1)
        share = share / (share.sum(1, keepdim=True) * rows.shape[2])
        share = share.repeat_interleave(len(weight) // groups, 0)
        mean = (rows * share).sum((1, 2), keepdim=True)
        var = ((rows - mean).square() * share).sum((1, 2), keepdim=True)
    return ((rows - mean) * (var + eps).rsqrt()).view_as(weight)


class FoldedStandardized(DMSOp):
    """Such a convolution with masks multiplied into its weight."""

    # The mask of a block's depth is nothing to weight statistics by.
    carries_depth: ClassVar[bool] = False

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, C, H, W]."""
        mask = self.masks().inputs
        weight = standardized(self.weight, mask, self.groups, self.eps)
        if hasattr(self, 'gain'):
            weight = weight * (self.gain * self.scale)
        weight, bias = self.fold(weight, self.bias, self.groups)
        if getattr(self, 'same_pad', False):
            x = pad_same(x, self.kernel_size, self.stride, self.dilation)
        sizes = (self.stride, self.padding, self.dilation)
        return F.conv2d(x, weight, bias, *sizes, self.groups)


@MODELS.register_module()
class DMSStdConv2d(FoldedStandardized, StdConv2d):
    """``StdConv2d`` with masks."""


@MODELS.register_module()
class DMSStdConv2dSame(FoldedStandardized, StdConv2dSame):
    """``StdConv2dSame`` with masks."""


@MODELS.register_module()
class DMSScaledStdConv2d(FoldedStandardized, ScaledStdConv2d):
    """``ScaledStdConv2d`` with masks."""


@MODELS.register_module()
class DMSScaledStdConv2dSame(FoldedStandardized, ScaledStdConv2dSame):
    """``ScaledStdConv2dSame`` with masks."""


@register_kind
class StandardizedConvKind(ConvKind):
    """Convolutions with standardized weights, some with a gain of each output.

    The gain's constant factor is the one of the full number of inputs in an
    exported model, too: both compute the same.
    """

    types: ClassVar[Tuple[type, ...]] = (
        StdConv2d,
        StdConv2dSame,
        ScaledStdConv2d,
        ScaledStdConv2dSame,
    )
    masked = {
        StdConv2d: DMSStdConv2d,
        StdConv2dSame: DMSStdConv2dSame,
        ScaledStdConv2d: DMSScaledStdConv2d,
        ScaledStdConv2dSame: DMSScaledStdConv2dSame,
    }

    def entries(self, layer: nn.Module, key: str) -> Entries:
        """One gain for each output."""
        if key == 'gain':
            return 1.0, (OUTPUTS,)
        return super().entries(layer, key)

    def fewest_inputs(self, layer: nn.Module) -> int:
        """Two where the kernel has a single position: one has no variance."""
        return 1 if layer.weight[0, 0].numel() > 1 else 2 * layer.groups

    def narrow(
        self, layer: nn.Module, out_kept: Indices, in_kept: Indices
    ) -> None:
        """Keep some channels, in place, and their gains."""
        super().narrow(layer, out_kept, in_kept)
        if hasattr(layer, 'gain'):
            layer.gain = select(layer.gain, 0, out_kept)


class Activating(DMSOp):
    """A masked norm with an activation behind it."""

    def forward(self, x: Tensor) -> Any:
        """Normalize and activate [B, C, H, W]."""
        return self.act(self.drop(super().forward(x)))


@MODELS.register_module()
class DMSLayerNormAct2d(Activating, ChannelFirst, LayerNormAct2d):
    """``LayerNormAct2d`` with statistics of the kept channels."""


class _GroupNorm1(DMSGroupNorm):
    """One that does not call the code of the class it is mixed into."""

    def _normalize(self, x: Tensor, mask: Optional[Tensor]) -> Tensor:
        if mask is None:
            return nn.GroupNorm.forward(self, x)
        return super()._normalize(x, mask)


@MODELS.register_module()
class DMSGroupNorm1Act(Activating, _GroupNorm1, GroupNorm1Act):
    """``GroupNorm1Act`` with statistics of the kept channels."""


register_masked(LayerNormAct2d, DMSLayerNormAct2d)
register_masked(GroupNorm1Act, DMSGroupNorm1Act)
