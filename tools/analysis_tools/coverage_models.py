"""Architectures of the coverage table: one line each, nothing to run.

To add one, write a line: where its config is, the input and, if there is
something to say, settings of the search and a note. A detector is measured
like a classifier: its outputs are those of mode 'tensor', before
post-processing.
"""

from typing import Any, Dict, NamedTuple, Tuple

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
    """

    config: str
    size: int = 224
    scope: str = 'mmpretrain'
    options: Tuple[Tuple[str, Any], ...] = ()
    mutator: Tuple[Tuple[str, Any], ...] = ()
    note: str = ''


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


def _yolo(config: str) -> Case:
    """A detector of mmyolo."""
    return Case(f'mmyolo::{config}', 640, 'mmyolo')


YOLOV8 = 'yolov8/yolov8_{}_syncbn_fast_8xb16-500e_coco.py'

DETECTORS: Dict[str, Case] = {
    'YOLOv8-n': _yolo(YOLOV8.format('n')),
    'YOLOv8-s': _yolo(YOLOV8.format('s')),
    'YOLOv8-m': _yolo(YOLOV8.format('m')),
    'YOLOv8-l': _yolo(YOLOV8.format('l')),
    'YOLOv5-n': _yolo('yolov5/yolov5_n-v61_syncbn_fast_8xb16-300e_coco.py'),
    'YOLOX-tiny': _yolo('yolox/yolox_tiny_fast_8xb8-300e_coco.py'),
    'RTMDet-tiny': _yolo('rtmdet/rtmdet_tiny_syncbn_fast_8xb32-300e_coco.py'),
    'RetinaNet-R50': Case(
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 640, 'mmdet'
    ),
    'Faster R-CNN-R50': Case(
        'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        640,
        'mmdet',
        note='1000 fixed regions instead of proposals',
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

SECTIONS: Dict[str, Dict[str, Case]] = {
    'families': FAMILIES,
    'detectors': DETECTORS,
    'others': OTHERS,
}
