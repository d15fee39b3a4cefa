"""Layer types that are known by name, so that nothing has to be imported.

mmpretrain is optional: its layers get dynamic counterparts only where a
model uses them.
"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

LAYER_NORM_2D = 'mmpretrain.models.utils.norm.LayerNorm2d'
GRN = 'mmpretrain.models.utils.norm.GRN'
ATTENTION = 'mmpretrain.models.utils.attention.MultiheadAttention'

WINDOW_ATTENTION = 'mmpretrain.models.utils.attention.WindowMSA'
SHIFTED_WINDOWS = 'mmpretrain.models.utils.attention.ShiftWindowMSA'
C2F = 'mmyolo.models.layers.yolo_bricks.CSPLayerWithTwoConv'
TWO_STAGE = 'mmdet.models.detectors.two_stage.TwoStageDetector'
ROI_HEAD = 'mmdet.models.roi_heads.standard_roi_head.StandardRoIHead'
ROI_EXTRACTOR = (
    'mmdet.models.roi_heads.roi_extractors.single_level_roi_extractor.'
    'SingleRoIExtractor'
)
SWIN = 'mmpretrain.models.backbones.swin_transformer.SwinTransformer'


def qualified_name(kind: type) -> str:
    """Full name of a class."""
    return f'{kind.__module__}.{kind.__qualname__}'


def is_kind(module: object, name: str) -> bool:
    """Whether an object is an instance of the class with a full name."""
    return any(qualified_name(base) == name for base in type(module).__mro__)


def is_norm(module: object) -> bool:
    """Whether a layer has one parameter of each sort per channel."""
    return isinstance(module, (_BatchNorm, nn.LayerNorm)) or is_kind(
        module, GRN
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
    """Whether a layer can be narrowed: conv, linear or norm."""
    return is_weighted(module) or is_norm(module)
