"""Classes of libraries that are known by name, not imported."""

ATTENTION = 'mmpretrain.models.utils.attention.MultiheadAttention'

WINDOW_ATTENTION = 'mmpretrain.models.utils.attention.WindowMSA'
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
SWIN = 'mmpretrain.models.backbones.swin_transformer.SwinTransformer'


def qualified_name(kind: type) -> str:
    """Full name of a class."""
    return f'{kind.__module__}.{kind.__qualname__}'


def is_kind(module: object, name: str) -> bool:
    """Whether an object is an instance of the class with a full name."""
    return any(qualified_name(base) == name for base in type(module).__mro__)
