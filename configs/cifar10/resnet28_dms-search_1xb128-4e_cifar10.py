# CIFAR-10 from image files: search to a quarter of the MACs in 4 epochs.
_base_ = [
    '../_base_/models/resnet28_cifar.py',
    '../_base_/datasets/cifar10_folder.py',
    '../_base_/schedules/sgd_cosine.py',
    '../_base_/pipelines/pretrain_free.py',
    'mmpretrain::_base_/default_runtime.py',
]

algorithm = _base_.algorithm
algorithm.mutator.parse_cfg = dict(
    type='DMSChannelAnalyzer', demo_input=(1, 3, 32, 32)
)
model = dict(_delete_=True, architecture=_base_.model, **algorithm)

custom_hooks = [dict(_base_.resource_hook, target=0.253)]

max_epochs = 4
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        T_max=max_epochs,
        convert_to_iter_based=True,
    )
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
