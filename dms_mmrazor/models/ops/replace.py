"""Replace plain layers by their dynamic counterparts."""

import importlib
from typing import Dict, Iterator, Mapping, Tuple, Type

from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.cnn.bricks.wrappers import Linear as MMCVLinear
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from dms_mmrazor.models.ops.channel_first_norms import DMSGroupNorm
from dms_mmrazor.models.ops.dms_adaptive_conv import DMSConv2dAdaptivePadding
from dms_mmrazor.models.ops.dms_batch_norm import DMSBatchNorm2d
from dms_mmrazor.models.ops.dms_conv import DYNAMIC_CONVS
from dms_mmrazor.models.ops.dms_layer_norm import DMSLayerNorm
from dms_mmrazor.models.ops.dms_linear import DMSLinear
from dms_mmrazor.models.ops.dms_op import DMSOp
from dms_mmrazor.models.ops.dms_rms_norm import masked_rms_norm
from dms_mmrazor.models.ops.dms_silu import DMSSiLU
from dms_mmrazor.models.ops.known_types import (
    GRN,
    LAYER_NORM_2D,
    TIMM_GRN,
    qualified_name,
)
from dms_mmrazor.models.ops.multihead import (
    DMSMultiheadAttention,
    DMSOutProjection,
    DMSTransformerEncoderLayer,
)
from dms_mmrazor.models.ops.own_layers import own_layer

_MMPRETRAIN = 'dms_mmrazor.models.ops.mmpretrain_ops'
_TIMM = 'dms_mmrazor.plugins.timm'


class _DynamicOps(Mapping[Type[nn.Module], Type[DMSOp]]):
    """Plain type → dynamic type; some are imported when they are needed.

    Args:
        known (dict): Plain type → dynamic type.
        optional (dict): Full name of a type of another library → module
            and name of its dynamic type.
    """

    def __init__(
        self,
        known: Dict[Type[nn.Module], Type[DMSOp]],
        optional: Dict[str, Tuple[str, str]],
    ) -> None:
        self._known = known
        self._optional = optional

    def __getitem__(self, kind: Type[nn.Module]) -> Type[DMSOp]:
        if kind in self._known:
            return self._known[kind]
        place = self._optional.get(qualified_name(kind))
        if place is None:
            own = own_layer(kind) or masked_rms_norm(kind)
            if own is None:
                raise KeyError(kind)
            return own
        module, name = place
        return getattr(importlib.import_module(module), name)

    def __iter__(self) -> Iterator[Type[nn.Module]]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


# Exact types: a subclass with a forward of its own would lose it. mmcv's
# wrappers differ from torch's layers for empty inputs on torch < 1.5 only.
DYNAMIC_OPS: Mapping[Type[nn.Module], Type[DMSOp]] = _DynamicOps(
    {
        **DYNAMIC_CONVS,
        Conv2dAdaptivePadding: DMSConv2dAdaptivePadding,
        nn.Linear: DMSLinear,
        MMCVLinear: DMSLinear,
        nn.BatchNorm2d: DMSBatchNorm2d,
        nn.LayerNorm: DMSLayerNorm,
        nn.GroupNorm: DMSGroupNorm,
        nn.SiLU: DMSSiLU,
        nn.MultiheadAttention: DMSMultiheadAttention,
        NonDynamicallyQuantizableLinear: DMSOutProjection,
    },
    {
        LAYER_NORM_2D: (_MMPRETRAIN, 'DMSLayerNorm2d'),
        GRN: (_MMPRETRAIN, 'DMSGRN'),
        TIMM_GRN: (_TIMM, 'DMSGlobalResponseNorm'),
    },
)


def replace_with_dynamic(model: nn.Module, name: str) -> DMSOp:
    """Make layer ``name`` of ``model`` dynamic, unless it already is.

    A layer that several modules share (the heads of all levels, say) stays
    shared. What would compute it without calling it is made to call it.

    Returns:
        DMSOp: The dynamic layer, now part of the model.
    """
    parent_name, _, child_name = name.rpartition('.')
    parent = model.get_submodule(parent_name)
    module = getattr(parent, child_name)
    if isinstance(module, DMSOp):
        return module
    dynamic = DYNAMIC_OPS[type(module)].convert_from(module)
    _put(model, module, dynamic)
    call_modules_of(model, parent_name)
    return dynamic


def call_modules_of(model: nn.Module, name: str) -> None:
    """Let a module and those around it call all modules inside.

    Encoder layers of torch do not in evaluation, where masks and hooks would
    be lost.

    Args:
        model (nn.Module): The supernet.
        name (str): Full name of a module of it.
    """
    while name:
        module = model.get_submodule(name)
        if type(module) is nn.TransformerEncoderLayer:
            kind = DMSTransformerEncoderLayer
            _put(model, module, kind.convert_from(module))
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # only torch's kernels read them
        name = name.rpartition('.')[0]


def _put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Let all modules that have the old one have the new one."""
    for owner in model.modules():
        for key, child in owner._modules.items():
            if child is old:
                setattr(owner, key, new)
