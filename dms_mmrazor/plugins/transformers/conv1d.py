"""GPT-2's ``Conv1D``: a linear layer whose weight is [in, out]."""

from typing import ClassVar, List, Optional

from torch import Tensor, nn

from dms_mmrazor.layers.by_type import qualified_name
from dms_mmrazor.layers.kind import (
    Indices,
    LayerKind,
    register_kind,
    select,
)
from dms_mmrazor.layers.own_layers import OwnForward, derive_masked


class _TransposedForward(OwnForward):
    """Its own code reads a weight [in, out] with masks folded in."""

    transposed_weight: ClassVar[bool] = True


@register_kind
class Conv1DKind(LayerKind):
    """Linear layers with a transposed weight."""

    names = ('transformers.pytorch_utils.Conv1D',)

    def find_masked(self, layer_type: type) -> Optional[type]:
        """Of exactly this class, made when it is needed."""
        found = super().find_masked(layer_type)
        if found is None and qualified_name(layer_type) in self.names:
            return derive_masked(layer_type, _TransposedForward)
        return found

    def channels(self, layer: nn.Module, is_input: bool) -> int:
        """Number of features on one side."""
        return layer.weight.shape[0 if is_input else 1]

    def weights_by_outputs(self, layer: nn.Module) -> List[Tensor]:
        """Its weight as [out, in]."""
        return [layer.weight.t()]

    def narrow(
        self, layer: nn.Module, out_kept: Indices, in_kept: Indices
    ) -> None:
        """Keep some features, in place."""
        layer.weight = select(select(layer.weight, 1, out_kept), 0, in_kept)
        layer.bias = select(layer.bias, 0, out_kept)
        layer.nx, layer.nf = layer.weight.shape
