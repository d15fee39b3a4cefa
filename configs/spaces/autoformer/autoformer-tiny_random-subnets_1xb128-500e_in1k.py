# Training of a supernet for who does not have AutoFormer's weights, by its
# rule: one random subnet a step, 500 epochs.
_base_ = './autoformer-tiny_8xb128_in1k.py'

model = dict(
    _delete_=True,
    type='mmrazor.DMSSharedSupernet',
    architecture=_base_.model,
    mutator=_base_.space,
    samples=['random'],
)
train_cfg = dict(max_epochs=500)
