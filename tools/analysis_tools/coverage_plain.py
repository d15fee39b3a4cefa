"""Models of timm and torchvision for the table of plain models.

To add one, write its name as its library has it, and the size of the image
if that is another one. Small images are enough: what is searched does not
depend on them.
"""

from typing import Any, Dict, NamedTuple, Optional, Tuple

from torch import nn

CLASSES = 10
DETECTORS = (
    'retinanet_resnet50_fpn',
    'fcos_resnet50_fpn',
    'ssdlite320_mobilenet_v3_large',
    'ssd300_vgg16',
)
VIDEO = ('r3d_18', 'mc3_18', 'r2plus1d_18')


class PlainCase(NamedTuple):
    """A model that a library builds by its name.

    Attributes:
        library (str): 'timm', 'torchvision', or 'sound' for the network
            below.
        model (str): Its name there.
        size (int): Height and width of the image. Defaults to 64.
        options (tuple): Pairs (key, value) for the model. Defaults to ().
        note (str): What the table says besides. Defaults to ''.
        structures (int, optional): Random structures, where others than the
            command's are enough. Defaults to None.
    """

    library: str
    model: str
    size: int = 64
    options: Tuple[Tuple[str, Any], ...] = ()
    note: str = ''
    structures: Optional[int] = None

    def build(self) -> Any:
        """The model with new weights."""
        options = dict(self.options, num_classes=CLASSES)
        if self.library == 'timm':
            from timm import create_model

            return create_model(self.model, **options)
        if self.library == 'sound':
            return sound_network()
        from torchvision import models

        parts = models.segmentation, models.video, models.detection
        kind = next(k for k in (models, *parts) if hasattr(k, self.model))
        if kind in (models.segmentation, models.detection):
            options['weights_backbone'] = None
        return getattr(kind, self.model)(weights=None, **options)

    @property
    def shape(self) -> Tuple[int, ...]:
        """Of its input: an image, eight of them, or samples of sound."""
        if self.library == 'sound':
            return (1, 1, self.size)
        frames = (8,) if self.model in VIDEO else ()
        return (1, 3, *frames, self.size, self.size)


def sound_network() -> nn.Module:
    """A classifier of sound of four Conv1d, of the kind of M5."""
    layers = []
    for inputs, width, kernel in ((1, 32, 80), (32, 32, 3), (32, 64, 3)):
        stride = 16 if kernel == 80 else 1
        layers += [nn.Conv1d(inputs, width, kernel, stride)]
        layers += [nn.BatchNorm1d(width), nn.ReLU(), nn.MaxPool1d(2)]
    layers += [nn.Conv1d(64, 128, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(128, CLASSES))


def _timm(*names: str, size: int = 64, **options: Any) -> Dict[str, PlainCase]:
    pairs = tuple(options.items())
    return {
        f'timm {name}': PlainCase('timm', name, size, pairs) for name in names
    }


def _torchvision(
    *names: str, size: int = 64, **options: Any
) -> Dict[str, PlainCase]:
    pairs = tuple(options.items())
    return {
        f'torchvision {name}': PlainCase('torchvision', name, size, pairs)
        for name in names
    }


TIMM: Dict[str, PlainCase] = {
    **_timm('resnet18', 'resnet50', 'seresnet50', 'resnext50_32x4d'),
    **_timm('resnetv2_50', 'res2net50_26w_4s', 'regnetx_002', 'regnety_002'),
    **_timm('efficientnet_b0', 'efficientnet_lite0', 'tf_efficientnetv2_b0'),
    **_timm('mobilenetv2_100', 'mobilenetv3_small_100', 'mnasnet_100'),
    **_timm('mobilenetv4_conv_small', 'ghostnet_100'),
    **_timm('convnext_atto', 'convnextv2_atto', 'poolformer_s12'),
    **_timm('vit_tiny_patch16_224', 'deit_tiny_patch16_224', img_size=64),
    **_timm('deit3_small_patch16_224', 'beit_base_patch16_224', img_size=64),
    **_timm('mixer_s16_224', 'resmlp_12_224', img_size=64),
    **_timm('swin_tiny_patch4_window7_224', img_size=64, window_size=2),
    **_timm('cspresnet50', 'cspdarknet53', 'vgg11_bn', 'densenet121'),
    **_timm('dla34', 'repvgg_a0', 'ese_vovnet19b_dw', 'rexnet_100'),
    **_timm('inception_v3', size=96),
    **_timm('resnetblur18', 'tresnet_m', 'poolformerv2_s12'),
    **_timm('inception_next_tiny', 'fastvit_t8', 'repvit_m0_9', 'pvt_v2_b0'),
    **_timm('twins_svt_small', 'cait_xxs24_224', img_size=64),
    **_timm('xcit_nano_12_p16_224', img_size=64),
    **_timm('crossvit_tiny_240', size=240),
    **_timm('skresnet18', 'resnest14d', 'nf_resnet26', 'hgnet_tiny'),
    **_timm('lcnet_050', 'mixnet_s', 'starnet_s1', 'mambaout_femto'),
    **_timm('mobilevit_xxs', 'mobilevitv2_050', 'edgenext_xx_small'),
    **_timm('efficientvit_b0', 'focalnet_tiny_srf'),
    **_timm('eva02_tiny_patch14_224', size=56, img_size=56),
    **_timm('swinv2_tiny_window8_256', img_size=64, window_size=4),
    **_timm('vit_relpos_small_patch16_224', 'visformer_tiny', img_size=64),
    **_timm('volo_d1_224', 'gmixer_12_224', img_size=64),
    **_timm('levit_128s', size=224),
    **_timm('ecaresnet26t', 'efficientvit_m0'),
    **_timm('botnet26t_256', 'halonet26t', 'lambda_resnet26t', size=256),
    **_timm('gmlp_s16_224', img_size=64),
    **_timm('pit_ti_224', 'hiera_tiny_224', img_size=64),
    **_timm('convit_tiny', img_size=64, depth=4, local_up_to_layer=3),
    **_timm('fasternet_t0', 'lcnetv2_small', 'xception41', 'mobileone_s0'),
    **_timm('davit_tiny'),
    **_timm('coat_tiny', 'gcvit_xxtiny', 'mvitv2_tiny', img_size=64),
}
TORCHVISION: Dict[str, PlainCase] = {
    **_torchvision(
        'resnet18', 'resnet50', 'resnext50_32x4d', 'regnet_x_400mf'
    ),
    **_torchvision('wide_resnet50_2', 'regnet_y_400mf', 'mobilenet_v2'),
    **_torchvision('mobilenet_v3_small', 'efficientnet_b0', 'mnasnet1_0'),
    **_torchvision('efficientnet_v2_s', 'convnext_tiny', 'densenet121'),
    **_torchvision('vgg11_bn', 'shufflenet_v2_x1_0', 'squeezenet1_1'),
    **_torchvision('vit_b_32', image_size=64),
    **_torchvision('swin_t'),
    **_torchvision('googlenet', aux_logits=False, init_weights=False),
    'torchvision googlenet, auxiliary heads': PlainCase(
        'torchvision', 'googlenet', 64, (('init_weights', False),)
    ),
    **_torchvision('fcn_resnet50', 'deeplabv3_resnet50'),
    'torchvision fcn_resnet50, auxiliary head': PlainCase(
        'torchvision', 'fcn_resnet50', 64, (('aux_loss', True),)
    ),
    **_torchvision(*VIDEO, size=32),
    **_torchvision(*DETECTORS[:2]),
    **_torchvision(DETECTORS[2], size=320),
    **_torchvision(DETECTORS[3], size=300),
    **_torchvision('swin_v2_t'),
}
SOUND = {'Conv1d network': PlainCase('sound', 'm5', 4000)}

PLAIN_SECTIONS = {'timm': TIMM, 'torchvision': TORCHVISION, 'sound': SOUND}
