"""Batch and instance norms: each channel by itself."""

from typing import Any, Dict, Optional, Set

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from dms_mmrazor.models.ops.dms_op import DMSOp
from dms_mmrazor.models.ops.fold import fold_depth
from dms_mmrazor.models.ops.kind import PassingKind, register_kind
from dms_mmrazor.registry import MODELS


# `_BatchNorm` stands among the direct bases because mmengine's initializers
# recognize a layer by the names of its class and of its direct bases.
@MODELS.register_module()
class DMSBatchNorm2d(nn.BatchNorm2d, _BatchNorm, DMSOp):
    """``nn.BatchNorm2d`` whose affine part is multiplied by a depth mask.

    Its statistics are those of the unmasked branch.
    """

    accepted_mutable_attrs: Set[str] = {'num_features'}
    attr_mappings: Dict[str, str] = {
        'in_channels': 'num_features',
        'out_channels': 'num_features',
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_masks()

    def forward(self, input: Tensor) -> Tensor:
        """Normalize [B, C, H, W]."""
        mask = self.masks().depth
        if mask is None:
            return super().forward(input)
        self._check_input_dim(input)
        weight, bias = fold_depth(self.weight, self.bias, mask)
        use_batch = self.training or self.running_mean is None
        track = self.training and self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if track or not use_batch else None,
            self.running_var if track or not use_batch else None,
            weight,
            bias,
            use_batch,
            self._next_momentum() if track else 0.0,
            self.eps,
        )

    def _next_momentum(self) -> Optional[float]:
        """Count this batch; ``momentum=None`` means a cumulative average."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if self.momentum is None:
            return 1.0 / float(self.num_batches_tracked)
        return self.momentum


class ChannelwiseNormKind(PassingKind):
    """Norms of each channel by itself, with its statistics."""

    vectors = ('weight', 'bias', 'running_mean', 'running_var')

    def channels(self, layer: nn.Module, is_input: bool) -> int:
        """Number of features."""
        return layer.num_features

    def acts_alone(self, layer: nn.Module) -> bool:
        """Each channel by itself."""
        return True

    def keep(self, layer: nn.Module, kept: Tensor) -> None:
        """Set its number of features."""
        layer.num_features = len(kept)


@register_kind
class BatchNormKind(ChannelwiseNormKind):
    """Batch norms; one that ends a residual branch carries a depth mask."""

    types = (_BatchNorm,)
    masked = {nn.BatchNorm2d: DMSBatchNorm2d}
    known_to_mmrazor = True


@register_kind
class InstanceNormKind(ChannelwiseNormKind):
    """Instance norms."""

    types = (_InstanceNorm,)
