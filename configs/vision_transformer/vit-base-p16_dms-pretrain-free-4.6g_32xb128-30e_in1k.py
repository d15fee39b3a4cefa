# ViT-B/16 (17.6 G MACs) in the schedule of MAE's supervised baseline,
# pretrain-free search to the MACs of DeiT-small. Supernet and target are ours,
# epochs as for DeiT (A.4.1).
_base_ = [
    'mmpretrain::vision_transformer/vit-base-p16_32xb128-mae_in1k.py',
    '../_base_/pipelines/pretrain_free.py',
]

model = dict(_delete_=True, architecture=_base_.model, **_base_.algorithm)
# The average of the weights stays: it is what is validated and exported.
custom_hooks = [
    *_base_.custom_hooks,
    dict(_base_.resource_hook, target='4.6G'),
]

# The paper's setting for DeiT: 30 epochs; the first 20 warm up the learning
# rate, as in the schedule of the retraining.
train_cfg = dict(max_epochs=30)
