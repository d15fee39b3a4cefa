"""All that a search needs of a layer of two weights that no library has."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dms_mmrazor.layers import DMSOp, LayerKind, register_kind
from dms_mmrazor.layers.fold import fold_masks
from dms_mmrazor.models.mutables import LayerMasks


class Gated(nn.Module):
    """(V x) · sigmoid(G x) for [..., in], with V and G [out, in]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.randn(outputs, inputs))
        self.gate = nn.Parameter(torch.randn(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.value) * F.linear(x, self.gate).sigmoid()


class MaskedGated(Gated, DMSOp):
    """Its form that takes masks: those of its input fold into both."""

    def forward(self, x: Tensor) -> Tensor:
        value, _ = self.fold(self.value, None)
        inputs = LayerMasks(self.masks().inputs)
        gate, _ = fold_masks(self.gate, None, inputs)
        return F.linear(x, value) * F.linear(x, gate).sigmoid()


@register_kind
class GatedKind(LayerKind):
    types = (Gated,)
    masked = {Gated: MaskedGated}
    weights = ('value', 'gate')

    def channels(self, layer: Gated, is_input: bool) -> int:
        return layer.value.shape[int(is_input)]
