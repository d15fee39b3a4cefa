"""Layer norms of someone's own that a word tells where channels are.

ConvNeXt's code has one, and many models copied it: a module of a weight and
a bias that normalizes the last dimension or, with
``data_format='channels_first'``, the second one. Each copy is a class of its
own, so they are told by what they compute.
"""

from functools import lru_cache
from inspect import signature
from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dms_mmrazor.layers.dms_op import DMSOp
from dms_mmrazor.layers.fold import fold_depth
from dms_mmrazor.layers.kind import PassingKind, register_kind
from dms_mmrazor.layers.layer_norm import masked_layer_norm
from dms_mmrazor.layers.own_layers import (
    derive_masked,
    made,
    numbers,
    same,
)

FIRST, LAST = 'channels_first', 'channels_last'
"""What ``data_format`` may be."""


class FormattedNorm(DMSOp):
    """Such a layer norm with masked features.

    Attributes:
        data_format (str): 'channels_last' or 'channels_first'.
    """

    one_sided: ClassVar[bool] = True

    weight: Tensor
    bias: Tensor
    data_format: str

    @property
    def num_features(self) -> int:
        """Number of features."""
        return self.weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Normalize [..., C], or [B, C, ...] if channels come first."""
        masks = self.masks()
        if masks.inputs is None and masks.depth is None:
            return super().forward(x)
        if self.data_format == LAST:
            return self._normalize(x, masks.inputs, masks.depth)
        x = self._normalize(x.movedim(1, -1), masks.inputs, masks.depth)
        return x.movedim(-1, 1)

    def _normalize(
        self, x: Tensor, mask: Optional[Tensor], depth: Optional[Tensor]
    ) -> Tensor:
        """Normalize [..., C] with masks of the features and of a block."""
        weight, bias = self.weight, self.bias
        if depth is not None:
            weight, bias = fold_depth(weight, bias, depth)
        if mask is None:
            return F.layer_norm(x, weight.shape, weight, bias, self.eps)
        out = masked_layer_norm(x, mask, weight, bias, self.eps)
        return out if torch.is_autocast_enabled() else out.to(x.dtype)


@lru_cache(maxsize=None)
def is_formatted_norm(kind: type) -> bool:
    """Whether a class is a layer norm with a ``data_format``.

    Args:
        kind (type): Class of a layer; if its constructor takes that word,
            a layer of a few channels is tried.
    """
    if not issubclass(kind, nn.Module) or issubclass(kind, DMSOp):
        return False
    if 'data_format' not in signature(kind.__init__).parameters:
        return False
    return all(_normalizes(kind, word) for word in (FIRST, LAST))


@torch.no_grad()
def _normalizes(kind: type, data_format: str) -> bool:
    """Whether a layer in this format does what torch's layer norm does."""
    layer, x = made(kind, 6, data_format=data_format), numbers((2, 6, 6, 6))
    if layer is None or getattr(layer, 'data_format', '') != data_format:
        return False
    shapes = {k: tuple(p.shape) for k, p in layer.named_parameters()}
    if shapes != dict.fromkeys(('weight', 'bias'), (6,)):
        return False
    if not isinstance(getattr(layer, 'eps', None), (int, float)):
        return False
    layer.weight.copy_(torch.linspace(0.5, 2.0, 6))
    layer.bias.copy_(torch.linspace(-1.0, 1.0, 6))
    dim = 1 if data_format == FIRST else -1
    affine = (layer.weight, layer.bias, layer.eps)
    expected = F.layer_norm(x.movedim(dim, -1), (6,), *affine)
    return same(layer, x, expected.movedim(-1, dim))


@register_kind
class FormattedNormKind(PassingKind):
    """Layer norms whose ``data_format`` tells where channels are."""

    @property
    def before(self) -> Tuple[type, ...]:
        """Some extend torch's, as that of ``transformers``."""
        return (nn.LayerNorm,)

    def recognizes(self, layer_type: type) -> bool:
        """By what it, or a class that it extends, computes."""
        return any(map(is_formatted_norm, layer_type.__mro__))

    def find_masked(self, layer_type: type) -> Optional[type]:
        """A class derived from it, if it computes that itself."""
        if is_formatted_norm(layer_type):
            return derive_masked(layer_type, FormattedNorm)
        return None

    def channels(self, layer: nn.Module, is_input: bool) -> int:
        """Number of features."""
        return layer.weight.shape[0]

    def channels_first(self, layer: nn.Module) -> bool:
        """As it is told."""
        return layer.data_format == FIRST

    def keep(self, layer: nn.Module, kept: Tensor) -> None:
        """Set its copy of the number of features, if it has one."""
        if hasattr(layer, 'normalized_shape'):
            layer.normalized_shape = (len(kept),)
