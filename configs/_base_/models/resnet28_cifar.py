# A residual network for 32x32 images: mmpretrain's ResNet_CIFAR with the
# first three stages of ResNet-34, 3 + 4 + 6 blocks of 16, 32 and 64 channels
# (28 layers, 59.7 M MACs).
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmpretrain.ResNet_CIFAR',
        depth=34,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        stem_channels=16,
        base_channels=16,
        style='pytorch',
    ),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0),
        topk=(1,),
    ),
)
