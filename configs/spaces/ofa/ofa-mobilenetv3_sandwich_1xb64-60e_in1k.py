# Training of a supernet for who does not have OFA's weights: the sandwich
# rule with in-place distillation. Epochs are ours.
_base_ = './ofa-mobilenetv3_8xb64_in1k.py'

model = dict(
    _delete_=True,
    type='mmrazor.DMSSharedSupernet',
    architecture=_base_.model,
    mutator=_base_.space,
    logits='head.layers.1.fc',
)
train_cfg = dict(max_epochs=60)
param_scheduler = dict(
    _delete_=True, type='CosineAnnealingLR', T_max=60, by_epoch=True
)
