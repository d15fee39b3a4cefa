"""Convolutions with masked input channels, plain and transposed."""

from typing import Any, ClassVar, List, Optional

from mmcv.cnn.bricks.wrappers import Conv2d as MMCVConv2d
from mmcv.cnn.bricks.wrappers import Conv3d as MMCVConv3d
from mmcv.cnn.bricks.wrappers import ConvTranspose2d as MMCVConvTranspose2d
from mmcv.cnn.bricks.wrappers import ConvTranspose3d as MMCVConvTranspose3d
from torch import Tensor, nn
from torch.nn import functional as F

from dms_mmrazor.models.ops.dms_op import DMSOp
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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_masks()


@MODELS.register_module()
class DMSConv2d(FoldedConv, nn.Conv2d):
    """``nn.Conv2d`` with masks multiplied into its weight."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_masks()


@MODELS.register_module()
class DMSConv3d(FoldedConv, nn.Conv3d):
    """``nn.Conv3d`` with masks multiplied into its weight."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_masks()


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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_masks()


@MODELS.register_module()
class DMSConvTranspose2d(FoldedTranspose, nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with masks multiplied into its weight."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_masks()


@MODELS.register_module()
class DMSConvTranspose3d(FoldedTranspose, nn.ConvTranspose3d):
    """``nn.ConvTranspose3d`` with masks multiplied into its weight."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_masks()


# mmcv's wrappers differ from torch's layers for empty inputs on torch < 1.5
# only.
DYNAMIC_CONVS = {
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
}
"""Plain convolution → dynamic one."""
