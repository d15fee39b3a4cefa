"""Convolution with masked input channels."""

from typing import Any, ClassVar, Optional

from torch import Tensor, nn

from dms_mmrazor.models.ops.dms_op import DMSOp
from dms_mmrazor.registry import MODELS


@MODELS.register_module()
class DMSConv2d(nn.Conv2d, DMSOp):
    """``nn.Conv2d`` whose weight is multiplied by the masks of its input.

    A depthwise convolution does not mix channels: the mask of its channels
    acts in the next layer that does, so it is applied once.
    """

    carries_depth: ClassVar[bool] = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_masks()

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Optional[Tensor]
    ) -> Tensor:
        weight, bias = self.fold(weight, bias, self.groups)
        return super()._conv_forward(input, weight, bias)
