"""Convolutions of any dimension, plain and transposed, of torch and mmcv."""

from typing import ClassVar, List, Optional, Tuple

import torch
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.cnn.bricks.wrappers import Conv2d as MMCVConv2d
from mmcv.cnn.bricks.wrappers import Conv3d as MMCVConv3d
from mmcv.cnn.bricks.wrappers import ConvTranspose2d as MMCVConvTranspose2d
from mmcv.cnn.bricks.wrappers import ConvTranspose3d as MMCVConvTranspose3d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from dms_mmrazor.errors import DMSError
from dms_mmrazor.layers.dms_op import DMSOp
from dms_mmrazor.layers.kind import (
    INPUTS,
    OUTPUTS,
    Call,
    Entries,
    Indices,
    LayerKind,
    kept_by_group,
    kind_of,
    register_kind,
    select,
)
from dms_mmrazor.layers.own_layers import (
    OwnForward,
    derive_masked,
    folds,
)
from dms_mmrazor.registry import MODELS


class FoldedConv(DMSOp):
    """A convolution whose weight is multiplied by the masks of its input.

    A depthwise convolution does not mix channels: the mask of its channels
    acts in the next layer that does, so none is registered here.
    """

    carries_depth: ClassVar[bool] = True

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Optional[Tensor]
    ) -> Tensor:
        weight, bias = self.fold(weight, bias, self.groups)
        return super()._conv_forward(input, weight, bias)


# The plain layer stands among the direct bases because mmengine's
# initializers recognize a layer by the names of its class and direct bases.
@MODELS.register_module()
class DMSConv1d(FoldedConv, nn.Conv1d):
    """``nn.Conv1d`` with masks multiplied into its weight."""


@MODELS.register_module()
class DMSConv2d(FoldedConv, nn.Conv2d):
    """``nn.Conv2d`` with masks multiplied into its weight."""


@MODELS.register_module()
class DMSConv3d(FoldedConv, nn.Conv3d):
    """``nn.Conv3d`` with masks multiplied into its weight."""


class FoldedTranspose(DMSOp):
    """A transposed convolution with masks multiplied into its weight.

    The plain layer calls the convolution function itself, so the masks need
    a forward of their own. The weight is [in, out / groups, ...].
    """

    carries_depth: ClassVar[bool] = True
    transposed_weight: ClassVar[bool] = True

    def forward(
        self, input: Tensor, output_size: Optional[List[int]] = None
    ) -> Tensor:
        """Convolve [B, C, ...], as the plain layer."""
        dims = len(self.kernel_size)
        padding = self._output_padding(
            input,
            output_size,
            self.stride,
            self.padding,
            self.kernel_size,
            dims,
            self.dilation,
        )
        weight, bias = self.fold(self.weight, self.bias, self.groups)
        convolve = (
            F.conv_transpose1d,
            F.conv_transpose2d,
            F.conv_transpose3d,
        )[dims - 1]
        return convolve(
            input,
            weight,
            bias,
            self.stride,
            self.padding,
            padding,
            self.groups,
            self.dilation,
        )


@MODELS.register_module()
class DMSConvTranspose1d(FoldedTranspose, nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` with masks multiplied into its weight."""


@MODELS.register_module()
class DMSConvTranspose2d(FoldedTranspose, nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with masks multiplied into its weight."""


@MODELS.register_module()
class DMSConvTranspose3d(FoldedTranspose, nn.ConvTranspose3d):
    """``nn.ConvTranspose3d`` with masks multiplied into its weight."""


# `nn.Conv2d` stands among the direct bases because mmengine's initializers
# recognize a layer by the names of its class and of its direct bases.
@MODELS.register_module()
class DMSConv2dAdaptivePadding(DMSOp, Conv2dAdaptivePadding, nn.Conv2d):
    """``Conv2dAdaptivePadding`` with masks multiplied into its weight.

    The plain layer calls the convolution function itself, so the masks need
    a forward of their own; it pads as the plain layer does: the output has
    ``ceil(size / stride)`` positions, an odd padding goes to the end.
    """

    carries_depth: ClassVar[bool] = True

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, C, H, W]."""
        padding = self._same_padding(x)
        if any(padding):
            x = F.pad(x, padding)
        weight, bias = self.fold(self.weight, self.bias, self.groups)
        return F.conv2d(
            x,
            weight,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )

    def _same_padding(self, x: Tensor) -> List[int]:
        """Padding as ``F.pad`` takes it: the last dimension first."""
        padding: List[int] = []
        for dim in (1, 0):
            size, stride = x.shape[2 + dim], self.stride[dim]
            reach = (self.kernel_size[dim] - 1) * self.dilation[dim] + 1
            steps = -(-size // stride) - 1
            total = max(steps * stride + reach - size, 0)
            padding += [total // 2, total - total // 2]
        return padding


@register_kind
class ConvKind(LayerKind):
    """Convolutions.

    mmcv's wrappers differ from torch's layers for empty inputs on torch < 1.5
    only.
    """

    types = (_ConvNd,)
    masked = {
        nn.Conv1d: DMSConv1d,
        nn.Conv2d: DMSConv2d,
        nn.Conv3d: DMSConv3d,
        nn.ConvTranspose1d: DMSConvTranspose1d,
        nn.ConvTranspose2d: DMSConvTranspose2d,
        nn.ConvTranspose3d: DMSConvTranspose3d,
        MMCVConv2d: DMSConv2d,
        MMCVConv3d: DMSConv3d,
        MMCVConvTranspose2d: DMSConvTranspose2d,
        MMCVConvTranspose3d: DMSConvTranspose3d,
        Conv2dAdaptivePadding: DMSConv2dAdaptivePadding,
    }

    def find_masked(self, layer_type: type) -> Optional[type]:
        """Also of classes that compute like torch's."""
        found = super().find_masked(layer_type)
        if found is not None:
            return found
        for dims, stock in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d), 1):
            shape = (2, 6, 9, 8, 7)[: 2 + dims]
            own = issubclass(layer_type, stock)
            if own and folds(layer_type, (6, 4, 3), shape, 1):
                return derive_masked(layer_type, OwnForward)
        return None

    def is_depthwise(self, layer: nn.Module) -> bool:
        """One or, with a multiplier, several outputs for each input."""
        return layer.groups == layer.in_channels > 1

    def channels_first(self, layer: nn.Module) -> bool:
        """[B, C, ...]."""
        return True

    def positions(self, layer: nn.Module, call: Call) -> int:
        """A transposed one is applied to each position that it reads."""
        if is_transposed(layer):
            return call.args[0].numel() // layer.in_channels
        return super().positions(layer, call)

    def entries(self, layer: nn.Module, key: str) -> Entries:
        """A depthwise one has no inputs that could go by themselves."""
        if key == 'weight' and self.is_depthwise(layer):
            return layer.weight.numel() / layer.out_channels, (OUTPUTS,)
        if key == 'weight':
            kernel = layer.weight[0, 0].numel() / layer.groups
            return kernel, (OUTPUTS, INPUTS)
        return super().entries(layer, key)

    def weights_by_outputs(self, layer: nn.Module) -> List[Tensor]:
        """[out, in / groups, ...], transposed ones, too."""
        return [_by_outputs(layer)]

    def describe(self, layer: nn.Module, output: Tensor) -> str:
        """'Conv2d 3x3, 16 to 32, 8x8 by stride 2'."""
        kernel = 'x'.join(str(n) for n in layer.kernel_size)
        size = 'x'.join(str(n) for n in output.shape[2:])
        if set(layer.stride) != {1}:
            size += f' by stride {max(layer.stride)}'
        if layer.groups > 1:
            size += f' in {layer.groups} groups'
        widths = f'{layer.in_channels} to {layer.out_channels}'
        return f'{type(layer).__name__} {kernel}, {widths}, {size}'

    def narrow(
        self, layer: nn.Module, out_kept: Indices, in_kept: Indices
    ) -> None:
        """Keep some channels, in place; groups stay equal, or go whole."""
        if layer.groups == 1:
            sides = (out_kept, in_kept)
            dims = (1, 0) if is_transposed(layer) else (0, 1)
            for dim, kept in zip(dims, sides):
                layer.weight = select(layer.weight, dim, kept)
            layer.out_channels, layer.in_channels = (
                layer.weight.shape[dim] for dim in dims
            )
        else:
            weight, groups = _grouped_weight(layer, out_kept, in_kept)
            layer.groups = groups
            layer.out_channels = weight.shape[0]
            layer.in_channels = weight.shape[1] * groups
            if is_transposed(layer):
                weight = swap_sides(weight, groups)
            trains = layer.weight.requires_grad
            layer.weight = nn.Parameter(weight, requires_grad=trains)
        layer.bias = select(layer.bias, 0, out_kept)


def is_conv(layer: object) -> bool:
    """Whether a layer is a convolution of any dimension, or transposed."""
    return isinstance(kind_of(layer), ConvKind)


def is_transposed(layer: object) -> bool:
    """Whether a layer's weight is [in, out / groups, ...]."""
    return isinstance(layer, _ConvTransposeNd)


def _by_outputs(layer: nn.Module) -> Tensor:
    if is_transposed(layer):
        return swap_sides(layer.weight, layer.groups)
    return layer.weight


def swap_sides(weight: Tensor, groups: int) -> Tensor:
    """[in, out / groups, ...] as [out, in / groups, ...], or back."""
    first, second, *kernel = weight.shape
    parts = weight.reshape(groups, first // groups, second, *kernel)
    return parts.transpose(1, 2).reshape(
        groups * second, first // groups, *kernel
    )


def _grouped_weight(
    layer: _ConvNd, out_kept: Indices, in_kept: Indices
) -> Tuple[Tensor, int]:
    """Kept [out, in / groups, ...] of a grouped one, and its groups."""
    outs = kept_by_group(layer.out_channels, layer.groups, out_kept)
    ins = kept_by_group(layer.in_channels, layer.groups, in_kept)
    sizes = torch.stack([outs.sum(dim=1), ins.sum(dim=1)], dim=1)
    unlike = (sizes[:, 0] == 0) != (sizes[:, 1] == 0)
    if in_kept is not None and unlike.any():
        group = int(unlike.nonzero()[0])
        raise DMSError(
            f'a grouped convolution would keep {int(sizes[group, 0])} outputs '
            f'and {int(sizes[group, 1])} inputs of group {group}.'
        )
    left = (sizes > 0).all(dim=1)
    kinds = sorted(set(map(tuple, sizes[left].tolist())))
    if len(kinds) != 1:
        raise DMSError(
            'the groups of a convolution would become unequal (outputs, '
            f'inputs): {kinds}.'
        )
    ((per_out, per_in),) = kinds
    weight = _by_outputs(layer).detach()
    rows = (outs & left[:, None]).flatten().nonzero().flatten()
    columns = ins[left].nonzero()[:, 1].view(-1, 1, per_in)
    columns = columns.expand(-1, per_out, -1).reshape(-1, per_in)
    index = columns.view(*columns.shape, *[1] * (weight.dim() - 2))
    index = index.expand(-1, -1, *weight.shape[2:]).to(weight.device)
    kept = weight.index_select(0, rows.to(weight.device)).gather(1, index)
    return kept, int(left.sum())
