# RegNetX-3.2GF, pretrain-free search to the MACs of RegNetX-1.6GF. Supernet
# and target are ours, epochs as for ResNet (A.4.1).
_base_ = [
    'mmpretrain::regnet/regnetx-3.2gf_8xb64_in1k.py',
    '../_base_/pipelines/pretrain_free.py',
]

model = dict(_delete_=True, architecture=_base_.model, **_base_.algorithm)
# mmpretrain's PreciseBNHook is left to the retraining: statistics of a
# supernet whose widths change are of no use after the epoch.
custom_hooks = [dict(_base_.resource_hook, target='1.6G')]

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
