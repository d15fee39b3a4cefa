"""Architectures of the coverage table: one line each, nothing to run.

To add one, write a line: where its config is, the input and, if there is
something to say, settings of the search and a note. A detector is measured
like a classifier: its outputs are those of mode 'tensor', before
post-processing.
"""

from typing import Any, Dict, NamedTuple, Optional, Tuple

MODELS = 'mmpretrain::_base_/models/'


class Case(NamedTuple):
    """An architecture and how it is searched.

    Attributes:
        config (str): A config file with `model`, in this repository or in
            a package ('mmpretrain::…').
        size (int): Height and width of the input. Defaults to 224.
        scope (str): Registry of the model. Defaults to 'mmpretrain'.
        options (tuple): Pairs (key, value) that change the config, as
            `--cfg-options` does. Defaults to ().
        mutator (tuple): Pairs (key, value) of the `DMSMutator`. Defaults to
            ().
        note (str): What the table says besides. Defaults to ''.
        structures (int, optional): Random structures, where others than the
            command's are enough. Defaults to None.
    """

    config: str
    size: int = 224
    scope: str = 'mmpretrain'
    options: Tuple[Tuple[str, Any], ...] = ()
    mutator: Tuple[Tuple[str, Any], ...] = ()
    note: str = ''
    structures: Optional[int] = None


def _image(pixels: int) -> Tuple[Tuple[str, Any], ...]:
    """Options of a model whose config names the image's size."""
    return (('model.backbone.img_size', pixels),)


FAMILIES: Dict[str, Case] = {
    'ResNet-18': Case(MODELS + 'resnet18.py'),
    'ResNet-50': Case(MODELS + 'resnet50.py'),
    'ResNet-101': Case(MODELS + 'resnet101.py'),
    'ResNet-152': Case(MODELS + 'resnet152.py'),
    'ResNeXt-50': Case(MODELS + 'resnext50_32x4d.py'),
    'SE-ResNet-50': Case(MODELS + 'seresnet50.py'),
    'RegNetX-400MF': Case(MODELS + 'regnet/regnetx_400mf.py'),
    'MobileNetV2': Case(MODELS + 'mobilenet_v2_1x.py'),
    'MobileNetV3-small': Case(
        MODELS + 'mobilenet_v3/mobilenet_v3_small_imagenet.py'
    ),
    'MobileNetV3-large': Case(
        MODELS + 'mobilenet_v3/mobilenet_v3_large_imagenet.py'
    ),
    'EfficientNet-B0': Case(MODELS + 'efficientnet_b0.py'),
    'EfficientNet-B4': Case(MODELS + 'efficientnet_b4.py'),
    'EfficientNet-B7': Case(MODELS + 'efficientnet_b7.py'),
    'RepVGG-A0': Case(MODELS + 'repvgg-A0_in1k.py'),
    'DenseNet-121': Case(MODELS + 'densenet/densenet121.py'),
    'ConvNeXt-T': Case(MODELS + 'convnext/convnext-tiny.py'),
    'ConvNeXt-V2-atto': Case(MODELS + 'convnext_v2/atto.py'),
    'DeiT-tiny': Case('mmpretrain::deit/deit-tiny_4xb256_in1k.py'),
    'DeiT-small': Case('mmpretrain::deit/deit-small_4xb256_in1k.py'),
    'ViT-B/32': Case(MODELS + 'vit-base-p32.py', 224, options=_image(224)),
    'Swin-T': Case(MODELS + 'swin_transformer/tiny_224.py'),
}


def _yolo(config: str, structures: Optional[int] = None) -> Case:
    """A detector of mmyolo."""
    return Case(f'mmyolo::{config}', 640, 'mmyolo', structures=structures)


YOLOV8 = 'yolov8/yolov8_{}_syncbn_fast_8xb16-500e_coco.py'

DETECTORS: Dict[str, Case] = {
    'YOLOv8-n': _yolo(YOLOV8.format('n')),
    'YOLOv8-s': _yolo(YOLOV8.format('s')),
    'YOLOv8-m': _yolo(YOLOV8.format('m'), 1),
    'YOLOv8-l': _yolo(YOLOV8.format('l'), 1),
    'YOLOv5-n': _yolo('yolov5/yolov5_n-v61_syncbn_fast_8xb16-300e_coco.py'),
    'YOLOX-tiny': _yolo('yolox/yolox_tiny_fast_8xb8-300e_coco.py'),
    'RTMDet-tiny': _yolo('rtmdet/rtmdet_tiny_syncbn_fast_8xb32-300e_coco.py'),
    'RetinaNet-R50': Case(
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        640,
        'mmdet',
        structures=1,
    ),
    'Faster R-CNN-R50': Case(
        'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        640,
        'mmdet',
        note='1000 fixed regions instead of proposals',
        structures=1,
    ),
}

OTHERS: Dict[str, Case] = {
    'BEiT': Case('mmpretrain::beit/benchmarks/beit-base-p16_8xb64_in1k.py'),
    'Conformer': Case(MODELS + 'conformer/tiny-p16.py'),
    'ConvMixer': Case(MODELS + 'convmixer/convmixer-768-32.py', 64),
    'CSPDarkNet': Case('mmpretrain::cspnet/cspdarknet50_8xb32_in1k.py', 128),
    'CSPResNet': Case('mmpretrain::cspnet/cspresnet50_8xb32_in1k.py', 128),
    'CSPResNeXt': Case('mmpretrain::cspnet/cspresnext50_8xb32_in1k.py', 128),
    'DaViT': Case(MODELS + 'davit/davit-tiny.py'),
    'DeiT3': Case(MODELS + 'deit3/deit3-small-p16-224.py'),
    'EdgeNeXt': Case(MODELS + 'edgenext/edgenext-xxsmall.py', 128),
    'EfficientFormer': Case(MODELS + 'efficientformer-l1.py'),
    'EfficientNet-ES': Case(MODELS + 'efficientnet_es.py', 128),
    'EfficientNetV2': Case(
        MODELS + 'efficientnet_v2/efficientnetv2_b0.py', 128
    ),
    'HiViT': Case(MODELS + 'hivit/tiny_224.py'),
    'HorNet': Case(MODELS + 'hornet/hornet-tiny.py', 128),
    'HRNet': Case(MODELS + 'hrnet/hrnet-w18.py', 64),
    'InceptionV3': Case(MODELS + 'inception_v3.py', 128),
    'InceptionV3, auxiliary head': Case(
        MODELS + 'inception_v3.py',
        299,
        options=(('model.backbone.aux_logits', True),),
    ),
    'LeViT': Case(MODELS + 'levit-256-p16.py'),
    'MLP-Mixer': Case(MODELS + 'mlp_mixer_base_patch16.py'),
    'MobileOne': Case(MODELS + 'mobileone/mobileone_s0.py', 64),
    'MobileViT': Case(MODELS + 'mobilevit/mobilevit_xxs.py', 128),
    'MViTv2': Case(MODELS + 'mvit/mvitv2-tiny.py'),
    'PoolFormer': Case(MODELS + 'poolformer/poolformer_s12.py', 64),
    'RepLKNet': Case(MODELS + 'replknet-31B_in1k.py', 64),
    'RepMLP': Case(MODELS + 'repmlp-base_224.py'),
    'Res2Net': Case(MODELS + 'res2net50-w14-s8.py', 64),
    'ResNeSt': Case(MODELS + 'resnest50.py', 64),
    'ResNetV1d': Case(MODELS + 'resnetv1d50.py', 64),
    'RevViT': Case(MODELS + 'revvit/revvit-small.py'),
    'ShuffleNetV1': Case(MODELS + 'shufflenet_v1_1x.py', 64),
    'ShuffleNetV2': Case(MODELS + 'shufflenet_v2_1x.py', 64),
    'SwinV2': Case(MODELS + 'swin_transformer_v2/tiny_256.py', 256),
    'T2T-ViT': Case(MODELS + 't2t-vit-t-14.py'),
    'TinyViT': Case(MODELS + 'tinyvit/tinyvit-5m.py'),
    'TNT': Case(MODELS + 'tnt_s_patch16_224.py'),
    'Twins-PCPVT': Case(MODELS + 'twins_pcpvt_base.py'),
    'Twins-SVT': Case(MODELS + 'twins_svt_base.py'),
    'VAN': Case(MODELS + 'van/van_tiny.py', 64),
    'VGG-11': Case(MODELS + 'vgg11.py'),
    'ViG': Case(MODELS + 'vig/vig_tiny.py'),
    'Wide-ResNet-50': Case(MODELS + 'wide-resnet50.py', 64),
    'XCiT': Case('mmpretrain::xcit/xcit-nano-12-p16_8xb128_in1k.py'),
}


def _mmdet(config: str, size: int = 128, **options: Any) -> Case:
    """A detector of mmdet; a `__` of an option is a dot below `model`."""
    pairs = tuple(
        (f'model.{key.replace("__", ".")}', value)
        for key, value in options.items()
    )
    return Case(f'mmdet::{config}', size, 'mmdet', pairs)


FEW_LAYERS = dict(encoder__num_layers=2, decoder__num_layers=2)
FEW_REGIONS = dict(test_cfg__rpn__max_per_img=8)
LSJ = '_fpn_8xb8-amp-lsj-200e_coco.py'

DENSE: Dict[str, Case] = {
    'ATSS-R18': _mmdet('atss/atss_r18' + LSJ),
    'Cascade R-CNN-R18': _mmdet(
        'cascade_rcnn/cascade-rcnn_r18' + LSJ, **FEW_REGIONS
    ),
    'Cascade Mask R-CNN-R50': _mmdet(
        'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', **FEW_REGIONS
    ),
    'CenterNet-R18': _mmdet('centernet/centernet-update_r18' + LSJ),
    'Conditional DETR-R50': _mmdet(
        'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py', **FEW_LAYERS
    ),
    'DAB-DETR-R50': _mmdet(
        'dab_detr/dab-detr_r50_8xb2-50e_coco.py', **FEW_LAYERS
    ),
    'Deformable DETR-R50': _mmdet(
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', **FEW_LAYERS
    ),
    'DETR-R18': _mmdet('detr/detr_r18_8xb2-500e_coco.py'),
    'DINO-R50': _mmdet(
        'dino/dino-4scale_r50_8xb2-12e_coco.py', **FEW_LAYERS, num_queries=50
    ),
    'FCOS-R18': _mmdet(
        'fcos/fcos_r18_fpn_gn-head-center-normbbox-centeronreg-giou_8xb8-amp-'
        'lsj-200e_coco.py'
    ),
    'FoveaBox-R50': _mmdet('foveabox/fovea_r50_fpn_4xb4-1x_coco.py'),
    'GFL-R50': _mmdet('gfl/gfl_r50_fpn_1x_coco.py'),
    'HTC-R50': _mmdet('htc/htc_r50_fpn_1x_coco.py', **FEW_REGIONS),
    'HTC without semantics-R50': _mmdet(
        'htc/htc-without-semantic_r50_fpn_1x_coco.py', **FEW_REGIONS
    ),
    'Mask R-CNN-R50': _mmdet(
        'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', **FEW_REGIONS
    ),
    'Mask2Former-R50': _mmdet(
        'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
        panoptic_head__transformer_decoder__num_layers=2,
    ),
    'MaskFormer-R50': _mmdet(
        'maskformer/maskformer_r50_ms-16xb1-75e_coco.py',
        panoptic_head__transformer_decoder__num_layers=2,
    ),
    'PAA-R50': _mmdet('paa/paa_r50_fpn_1x_coco.py'),
    'RepPoints-R50': _mmdet('reppoints/reppoints-moment_r50_fpn_1x_coco.py'),
    'RetinaNet-PVTv2-b0': _mmdet('pvt/retinanet_pvtv2-b0_fpn_1x_coco.py'),
    'RetinaNet-Swin-T': _mmdet('swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py'),
    'SOLO-R18': _mmdet('solo/solo_r18_fpn_8xb8-lsj-200e_coco.py'),
    'Sparse R-CNN-R50': _mmdet('sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py'),
    'SSD300': _mmdet('ssd/ssd300_coco.py', 300),
    'SSDLite': _mmdet('ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py'),
    'TOOD-R50': _mmdet('tood/tood_r50_fpn_1x_coco.py'),
    'VFNet-R50': _mmdet('vfnet/vfnet_r50_fpn_1x_coco.py'),
    'YOLOF-R50': _mmdet('yolof/yolof_r50-c5_8xb8-1x_coco.py'),
    'YOLOv3-MobileNetV2': _mmdet(
        'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py'
    ),
}

SECTIONS: Dict[str, Dict[str, Case]] = {
    'families': FAMILIES,
    'detectors': DETECTORS,
    'others': OTHERS,
    'dense': DENSE,
}
