"""Batch and instance norms: each channel by itself.

A model may come with norms that share their statistics over processes:
mmyolo's detectors exchange their norms when they are built in one of several.
Tracing, proving and exporting happen in one process alone, partly on the CPU,
where they do not run, so they are ordinary norms meanwhile.
"""

from typing import ClassVar, Dict, Optional

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from dms_mmrazor.layers.dms_op import DMSOp
from dms_mmrazor.layers.fold import fold_depth
from dms_mmrazor.layers.kind import PassingKind, register_kind
from dms_mmrazor.registry import MODELS

# torch's and mmcv's; the latter needs mmcv's operators to be imported.
_SYNC_NORM = 'SyncBatchNorm'


# `_BatchNorm` stands among the direct bases because mmengine's initializers
# recognize a layer by the names of its class and of its direct bases.
@MODELS.register_module()
class DMSBatchNorm2d(DMSOp, nn.BatchNorm2d, _BatchNorm):
    """``nn.BatchNorm2d`` whose affine part is multiplied by a depth mask.

    Its statistics are those of the unmasked branch.
    """

    one_sided: ClassVar[bool] = True

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


@register_kind
class InstanceNormKind(ChannelwiseNormKind):
    """Instance norms."""

    types = (_InstanceNorm,)


def revert_sync_norms(model: nn.Module) -> Dict[str, nn.Module]:
    """Make them ordinary norms with the same tensors, in place.

    Args:
        model (nn.Module): A model for images.

    Returns:
        dict[str, nn.Module]: What was replaced, by name.
    """
    found = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if type(module).__name__ == _SYNC_NORM
    }
    # A norm under two names stays one.
    new = {id(module): _ordinary(module) for module in found.values()}
    for name, module in found.items():
        _set(model, name, new[id(module)])
    return found


def apply_sync_norms(model: nn.Module, norms: Dict[str, nn.Module]) -> None:
    """Undo :func:`revert_sync_norms`, in place.

    Args:
        model (nn.Module): The model; its layers may have been made dynamic.
        norms (dict[str, nn.Module]): What that function returned.
    """
    for name, norm in norms.items():
        _share_tensors(model.get_submodule(name), norm)
        _set(model, name, norm)


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition('.')
    setattr(model.get_submodule(parent), child, module)


def _ordinary(norm: nn.Module) -> nn.Module:
    new = nn.BatchNorm2d(
        norm.num_features,
        norm.eps,
        norm.momentum,
        norm.affine,
        norm.track_running_stats,
    )
    _share_tensors(norm, new)
    return new.train(norm.training)


def _share_tensors(source: nn.Module, target: nn.Module) -> None:
    for name, tensor in [
        *source.named_parameters(recurse=False),
        *source.named_buffers(recurse=False),
    ]:
        setattr(target, name, tensor)
