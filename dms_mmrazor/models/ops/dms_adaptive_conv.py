"""TensorFlow-style convolution with masked input channels (EfficientNet)."""

from typing import Any, ClassVar, List

from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from torch import Tensor, nn
from torch.nn import functional as F

from dms_mmrazor.models.ops.dms_op import DMSOp
from dms_mmrazor.registry import MODELS


# `nn.Conv2d` stands among the direct bases because mmengine's initializers
# recognize a layer by the names of its class and of its direct bases.
@MODELS.register_module()
class DMSConv2dAdaptivePadding(Conv2dAdaptivePadding, nn.Conv2d, DMSOp):
    """``Conv2dAdaptivePadding`` with masks multiplied into its weight.

    The plain layer calls the convolution function itself, so the masks need
    a forward of their own; it pads as the plain layer does: the output has
    ``ceil(size / stride)`` positions, an odd padding goes to the end.
    """

    carries_depth: ClassVar[bool] = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_masks()

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
