# Plain training of the whole network, the demo's first row.
_base_ = [
    '../_base_/models/resnet28_cifar.py',
    '../_base_/datasets/digits_folder.py',
    '../_base_/schedules/sgd_cosine.py',
    'mmpretrain::_base_/default_runtime.py',
]

max_epochs = 10
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        T_max=max_epochs,
        convert_to_iter_based=True,
    )
]
default_hooks = dict(
    logger=dict(interval=22),
    checkpoint=dict(interval=max_epochs, max_keep_ckpts=1),
)
randomness = dict(seed=0)
