# RepVGG-B0 (3.4 G MACs with all branches), pretrain-free search to the MACs
# of RepVGG-A0. Supernet, target and epochs are ours.
_base_ = [
    'mmpretrain::repvgg/repvgg-B0_8xb32_in1k.py',
    '../_base_/pipelines/pretrain_free.py',
]

model = dict(_delete_=True, architecture=_base_.model, **_base_.algorithm)
custom_hooks = [dict(_base_.resource_hook, target='1.5G')]

# A tenth of the epochs of the retraining, as in Table 14.
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        T_max=max_epochs,
        convert_to_iter_based=True,
    )
]
