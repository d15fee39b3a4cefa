"""Linear layer with masked input features."""

from typing import Any, Dict, Set

from torch import Tensor, nn
from torch.nn import functional as F

from dms_mmrazor.models.ops.dms_op import DMSOp
from dms_mmrazor.registry import MODELS


@MODELS.register_module()
class DMSLinear(nn.Linear, DMSOp):
    """``nn.Linear`` whose weight is multiplied by the masks of its input."""

    accepted_mutable_attrs: Set[str] = {'in_features', 'out_features'}
    attr_mappings: Dict[str, str] = {
        'in_channels': 'in_features',
        'out_channels': 'out_features',
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_masks()

    def forward(self, input: Tensor) -> Tensor:
        """Linear map of [..., in_features]."""
        weight, bias = self.fold(self.weight, self.bias)
        return F.linear(input, weight, bias)
