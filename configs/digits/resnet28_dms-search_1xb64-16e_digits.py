# Search of the demo: a quarter of the MACs, from random weights.
_base_ = [
    './resnet28_1xb64-10e_digits.py',
    '../_base_/pipelines/pretrain_free.py',
]

algorithm = _base_.algorithm
algorithm.mutator.parse_cfg = dict(
    type='DMSChannelAnalyzer', demo_input=(1, 3, 32, 32)
)
model = dict(_delete_=True, architecture=_base_.model, **algorithm)

custom_hooks = [dict(_base_.resource_hook, target=0.253, interval=44)]

max_epochs = 16
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs // 2)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        T_max=max_epochs,
        convert_to_iter_based=True,
    )
]
default_hooks = dict(checkpoint=dict(interval=max_epochs // 2))
