# EfficientNet-B7 (6.7 G MACs), pretrain-free search to 0.68 G, the peer of
# EfficientNet-B1 (Table 4 and section A.4.1).
_base_ = [
    './efficientnet-b7_8xb96-450e_in1k-256px.py',
    '../_base_/pipelines/pretrain_free.py',
]

# The MACs are those of this input.
algorithm = _base_.algorithm
algorithm.mutator.parse_cfg = dict(
    type='DMSChannelAnalyzer', demo_input=(1, 3, 256, 256)
)

model = dict(_delete_=True, architecture=_base_.model, **algorithm)
# The average of the weights stays: it is what is validated and exported.
custom_hooks = [
    *_base_.custom_hooks,
    dict(_base_.resource_hook, target='0.68G'),
]

# 30 epochs (section A.4.1), in which the learning rate falls as far as in the
# 450 of the training.
train_cfg = dict(max_epochs=30)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        end=1,
        convert_to_iter_based=True,
    ),
    dict(
        type='ExponentialLR',
        gamma=0.97 ** (450 / 2.4 / 30),
        by_epoch=True,
        begin=1,
    ),
]
