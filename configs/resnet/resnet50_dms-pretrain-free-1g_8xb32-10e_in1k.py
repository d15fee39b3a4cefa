# ResNet-50, pretrain-free search to 1 G MACs over ten epochs (section 5.1).
_base_ = [
    'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    '../_base_/pipelines/pretrain_free.py',
]

model = dict(_delete_=True, architecture=_base_.model, **_base_.algorithm)
custom_hooks = [dict(_base_.resource_hook, target='1G')]

# A tenth of the epochs of the retraining (Table 14).
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
