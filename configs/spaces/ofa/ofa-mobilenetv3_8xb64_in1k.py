# The largest network of OFA's MobileNetV3 space at width 1, as a plain model
# with which its published weights work: see README.md.
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs64.py',
    'mmpretrain::_base_/schedules/imagenet_bs256.py',
    'mmpretrain::_base_/default_runtime.py',
    '../../_base_/spaces/ofa_mobilenetv3.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmrazor.OFAMobileNetV3', kernel_size=7),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='StackedLinearClsHead',
        num_classes=1000,
        in_channels=960,
        mid_channels=[1280],
        dropout_rate=0.1,
        act_cfg=dict(type='HSwish'),
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
        topk=(1, 5),
    ),
)
