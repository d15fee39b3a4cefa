# EfficientNet-B4 for 224 px, the paper's supernet below 0.5 G, in the setting
# that timm's documentation gives for EfficientNet-B2: the paper trains with
# timm's scripts (section A.4.1). Translated: per 256 images a learning rate of
# 0.016; eps is the root of 0.001, which timm's RMSprop adds under the root;
# steps of 2.4 epochs became a decay in every epoch. Not here: the dropout
# before the classifier, which mmpretrain's head does not have.
_base_ = [
    'mmpretrain::_base_/models/efficientnet_b4.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(backbone=dict(drop_path_rate=0.2))

train_pipeline = _base_.train_pipeline
train_pipeline[4].erase_prob = 0.2
train_dataloader = dict(batch_size=96, dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(
    optimizer=dict(
        type='RMSprop',
        lr=0.048,
        alpha=0.9,
        momentum=0.9,
        eps=0.0316,
        weight_decay=1e-5,
    ),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        end=3,
        convert_to_iter_based=True,
    ),
    dict(
        type='ExponentialLR', gamma=0.97 ** (1 / 2.4), by_epoch=True, begin=3
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=450, val_interval=1)
val_cfg = dict()
test_cfg = dict()
custom_hooks = [dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')]
auto_scale_lr = dict(base_batch_size=768)
