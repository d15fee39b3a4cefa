"""Layer types that are known by name, so that nothing has to be imported.

mmpretrain is optional: its layers get dynamic counterparts only where a
model uses them.
"""

from typing import Tuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

LAYER_NORM_2D = 'mmpretrain.models.utils.norm.LayerNorm2d'
GRN = 'mmpretrain.models.utils.norm.GRN'
ATTENTION = 'mmpretrain.models.utils.attention.MultiheadAttention'

WINDOW_ATTENTION = 'mmpretrain.models.utils.attention.WindowMSA'
TIMM_GRN = 'timm.layers.grn.GlobalResponseNorm'
TIMM_SCALE = 'timm.models.metaformer.Scale'
TORCHVISION_VIT = 'torchvision.models.vision_transformer.VisionTransformer'
TIMM_ATTENTION = 'timm.layers.attention.Attention'
TIMM_ATTENTION_BEFORE = 'timm.models.vision_transformer.Attention'
TIMM_WINDOW_ATTENTION = 'timm.models.swin_transformer.WindowAttention'
SHIFTED_WINDOWS = 'mmpretrain.models.utils.attention.ShiftWindowMSA'
C2F = 'mmyolo.models.layers.yolo_bricks.CSPLayerWithTwoConv'
TWO_STAGE = 'mmdet.models.detectors.two_stage.TwoStageDetector'
ROI_HEAD = 'mmdet.models.roi_heads.standard_roi_head.StandardRoIHead'
CASCADE_HEAD = 'mmdet.models.roi_heads.cascade_roi_head.CascadeRoIHead'
DETR = 'mmdet.models.detectors.base_detr.DetectionTransformer'
MASKFORMER = 'mmdet.models.detectors.maskformer.MaskFormer'
ROI_EXTRACTOR = (
    'mmdet.models.roi_heads.roi_extractors.single_level_roi_extractor.'
    'SingleRoIExtractor'
)
DECODERS = {
    'llama': 'Llama',
    'mistral': 'Mistral',
    'qwen2': 'Qwen2',
    'qwen3': 'Qwen3',
}
"""Language models of transformers: folder → prefix of the classes."""

SWIN = 'mmpretrain.models.backbones.swin_transformer.SwinTransformer'


def qualified_name(kind: type) -> str:
    """Full name of a class."""
    return f'{kind.__module__}.{kind.__qualname__}'


def is_kind(module: object, name: str) -> bool:
    """Whether an object is an instance of the class with a full name."""
    return any(qualified_name(base) == name for base in type(module).__mro__)


def decoder_names(part: str) -> Tuple[str, ...]:
    """Full names of the classes of one part of all :data:`DECODERS`."""
    return tuple(
        f'transformers.models.{file}.modeling_{file}.{prefix}{part}'
        for file, prefix in DECODERS.items()
    )


RMS_NORMS = decoder_names('RMSNorm')
"""Norms by the root of the mean square, with a ``weight``."""


def is_rms_norm(module: object) -> bool:
    """Whether a module is one of :data:`RMS_NORMS`."""
    names = {qualified_name(base) for base in type(module).__mro__}
    return not names.isdisjoint(RMS_NORMS)


def is_norm(module: object) -> bool:
    """Whether a layer has one parameter of each sort per channel.

    Its inputs and outputs are the same channels. So is a PReLU, unless all
    channels share one slope.
    """
    if isinstance(module, nn.PReLU):
        return module.num_parameters > 1
    kinds = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm)
    names = (GRN, TIMM_GRN)
    if isinstance(module, kinds) or any(is_kind(module, n) for n in names):
        return True
    return is_rms_norm(module)


def groups_of_norm(module: object) -> int:
    """In how many groups a layer normalizes channels; 0: in no groups.

    A group norm of a single group counts as none: like a layer norm it
    normalizes all channels together.
    """
    groups = getattr(module, 'num_groups', 0)
    return groups if isinstance(module, nn.GroupNorm) and groups > 1 else 0


def is_depthwise(module: object) -> bool:
    """Whether a convolution gives channels that each come from one input.

    One or, with a multiplier, several for each.
    """
    return is_conv(module) and module.groups == module.in_channels > 1


def acts_alone(module: object) -> bool:
    """Whether what a layer gives for a channel depends on that one alone.

    Then the masks of the layers that read it suffice. A second one would
    count twice: a norm behind a depthwise convolution would see its square.
    In a group norm it is whole groups, which are kept or removed together.
    """
    kinds = (_BatchNorm, _InstanceNorm, nn.PReLU)
    return (
        isinstance(module, kinds)
        or is_depthwise(module)
        or groups_of_norm(module) > 0
    )


def is_conv(module: object) -> bool:
    """Whether a layer is a convolution of any dimension, or transposed."""
    return isinstance(module, _ConvNd)


def is_transposed(module: object) -> bool:
    """Whether a layer's weight is [in, out / groups, ...]."""
    return isinstance(module, _ConvTransposeNd)


def is_weighted(module: object) -> bool:
    """Whether a layer is a convolution or a linear layer."""
    return is_conv(module) or isinstance(module, nn.Linear)


def is_layer(module: object) -> bool:
    """Whether a layer can be narrowed: conv, linear, norm or PReLU."""
    return is_weighted(module) or is_norm(module)
