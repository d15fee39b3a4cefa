# ResNeXt-101 32x4d (8.0 G MACs), pretrain-free search to the MACs of
# ResNeXt-50. Supernet and target are ours, epochs as for ResNet (A.4.1).
_base_ = [
    'mmpretrain::resnext/resnext101-32x4d_8xb32_in1k.py',
    '../_base_/pipelines/pretrain_free.py',
]

model = dict(_delete_=True, architecture=_base_.model, **_base_.algorithm)
custom_hooks = [dict(_base_.resource_hook, target='4.2G')]

# A tenth of the epochs of the retraining, as in Table 14.
max_epochs = 10
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        T_max=max_epochs,
        convert_to_iter_based=True,
    )
]
