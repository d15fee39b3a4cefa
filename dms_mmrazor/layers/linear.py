"""Linear layers, of torch and mmcv."""

from typing import ClassVar, Mapping, Optional, Tuple

import torch
from mmcv.cnn.bricks.wrappers import Linear as MMCVLinear
from torch import Tensor, nn
from torch.nn import functional as F

from dms_mmrazor.layers.dms_op import DMSOp
from dms_mmrazor.layers.fold_norm import fold_norm
from dms_mmrazor.layers.kind import (
    Indices,
    LayerKind,
    register_kind,
    select,
)
from dms_mmrazor.layers.layer_norm import DMSLayerNorm
from dms_mmrazor.layers.own_layers import (
    OwnForward,
    derive_masked,
    folds,
)
from dms_mmrazor.registry import MODELS


class NormHandle:
    """The layer norm whose scale and shift a linear layer applies.

    A plain object: the norm stays registered once, in its own block.
    """

    def __init__(self, norm: DMSLayerNorm) -> None:
        self.norm = norm

    @property
    def affine(self) -> Optional[Tuple[Tensor, Optional[Tensor]]]:
        """Scale and shift [in] if the norm leaves them at this step."""
        if not self.norm.leaves_affine:
            return None
        return self.norm.weight, self.norm.bias


@MODELS.register_module()
class DMSLinear(DMSOp, nn.Linear):
    """``nn.Linear`` whose weight is multiplied by the masks of its input."""

    carries_depth: ClassVar[bool] = True

    norm: Optional[NormHandle]

    def init_masks(self) -> None:
        """Start without masks, reading what a norm has scaled itself."""
        super().init_masks()
        self.norm = None

    def take_affine(self, norm: DMSLayerNorm) -> None:
        """Scale and shift the output of a layer norm, which leaves that.

        W (w ⊙ x + b) = (W ⊙ w) x + W b, so that the norm's affine part
        costs O(weights), too. Only with masks; and only for a norm whose
        output nothing else reads.

        Args:
            norm (DMSLayerNorm): It precedes this layer.
        """
        norm.affine_in_reader = True
        self.norm = NormHandle(norm)

    def forward(self, input: Tensor) -> Tensor:
        """Linear map of [..., in_features]."""
        affine = None if self.norm is None else self.norm.affine
        if affine is None:
            weight, bias = self.fold(self.weight, self.bias)
        else:
            weight, bias = self._fold_affine(*affine)
        return F.linear(input, weight, bias)

    def _fold_affine(
        self, scale: Tensor, shift: Optional[Tensor]
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """Weight and bias with the masks and the affine part of the norm."""
        masks = self.masks()
        inputs, bias = masks.inputs, self.bias
        if inputs is None:
            inputs = torch.ones_like(scale)
        if masks.depth is not None:
            inputs = inputs if masks.carried else inputs * masks.depth
            bias = None if bias is None else bias * masks.depth
        return fold_norm(
            self.weight, bias, inputs, scale, shift, masks.outputs
        )


@register_kind
class LinearKind(LayerKind):
    """Linear layers."""

    types = (nn.Linear,)
    masked = {nn.Linear: DMSLinear, MMCVLinear: DMSLinear}
    leaf = False  # torch's is one; what derives from it may do more

    def find_masked(self, layer_type: type) -> Optional[type]:
        """Also of classes that compute like torch's."""
        found = super().find_masked(layer_type)
        if found is None and folds(layer_type, (6, 4), (2, 5, 6), -1):
            return derive_masked(layer_type, OwnForward)
        return found

    def channels(self, layer: nn.Module, is_input: bool) -> int:
        """Number of features on one side."""
        return layer.in_features if is_input else layer.out_features

    def describe(self, layer: nn.Module, output: Tensor) -> str:
        """'Linear, 16 to 32, 196'."""
        rows = output.numel() // layer.out_features
        return f'Linear, {layer.in_features} to {layer.out_features}, {rows}'

    def narrow(
        self, layer: nn.Module, out_kept: Indices, in_kept: Indices
    ) -> None:
        """Keep some features, in place."""
        layer.weight = select(select(layer.weight, 0, out_kept), 1, in_kept)
        layer.bias = select(layer.bias, 0, out_kept)
        layer.out_features, layer.in_features = layer.weight.shape


def move_affines(model: nn.Module, readers: Mapping[str, str]) -> None:
    """Let linear layers scale and shift what masked layer norms give.

    Args:
        model (nn.Module): The supernet; its layers have their masks.
        readers (Mapping[str, str]): Name of a norm → name of the linear
            layer that alone reads it.
    """
    for norm_name, reader_name in readers.items():
        norm = model.get_submodule(norm_name)
        reader = model.get_submodule(reader_name)
        # Without masks nothing is gained; a norm that ends a branch carries
        # the depth mask of its block in its scale.
        if not (isinstance(norm, DMSLayerNorm) and norm.depth is None):
            continue
        if isinstance(reader, DMSLinear) and norm.weight is not None:
            reader.take_affine(norm)
