# The largest network of AutoFormer-T's space (2.2 G MACs), as a plain model
# with which its published weights work: see README.md.
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
    '../../_base_/spaces/autoformer.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmrazor.PlainAutoFormer',
        embed_dims=240,
        num_heads=4,
        mlp_ratio=4.0,
        depth=14,
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
    ),
    neck=None,
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=240,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    ),
)
train_dataloader = dict(batch_size=128)
