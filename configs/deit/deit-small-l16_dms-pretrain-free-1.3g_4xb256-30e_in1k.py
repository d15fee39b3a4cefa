# DeiT-small with 16 layers (6.1 G MACs), pretrain-free search to 1.3 G, the
# MACs of DeiT-tiny (Table 8 and section A.4.1).
_base_ = [
    './deit-small-l16_4xb256_in1k.py',
    '../_base_/pipelines/pretrain_free.py',
]

model = dict(_delete_=True, architecture=_base_.model, **_base_.algorithm)
custom_hooks = [dict(_base_.resource_hook, target='1.3G')]

# 30 epochs; the first 20 warm up the learning rate, as in the schedule of the
# retraining (section A.4.1).
train_cfg = dict(max_epochs=30)
