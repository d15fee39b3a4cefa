# MobileNetV2 with 1.5 times the channels and twice the blocks in each stage:
# the paper's supernet (section A.4.1).
_base_ = 'mmpretrain::_base_/models/mobilenet_v2_1x.py'

architecture = _base_.model
architecture.backbone.widen_factor = 1.5
architecture.head.in_channels = 1920
model = dict(
    _delete_=True,
    type='mmrazor.EnlargedModel',
    architecture=architecture,
    # Expansion, channels, blocks (twice those of MobileNetV2) and stride.
    constants={
        'backbone.arch_settings': [
            [1, 16, 2, 1],
            [6, 24, 4, 2],
            [6, 32, 6, 2],
            [6, 64, 8, 2],
            [6, 96, 6, 1],
            [6, 160, 6, 2],
            [6, 320, 2, 1],
        ]
    },
)
