# MobileNetV3-large with 1.5 times the channels (0.48 G MACs), pretrain-free
# search to the MACs of MobileNetV3-large. Supernet and target are ours, epochs
# as for MobileNetV2 (A.4.1).
_base_ = [
    'mmpretrain::mobilenet_v3/mobilenet-v3-large_8xb128_in1k.py',
    '../_base_/pipelines/pretrain_free.py',
]

architecture = dict(
    type='mmrazor.EnlargedModel', architecture=_base_.model, widen=1.5
)
model = dict(_delete_=True, architecture=architecture, **_base_.algorithm)
custom_hooks = [dict(_base_.resource_hook, target='0.22G')]

# 30 epochs, in which the learning rate falls as far as in the 600 of the
# training.
train_cfg = dict(max_epochs=30)
param_scheduler = dict(step_size=1, gamma=0.973**10)
