"""Classes of libraries that are known by name, not imported."""

from typing import Tuple

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
