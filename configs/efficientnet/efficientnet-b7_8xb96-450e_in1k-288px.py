# EfficientNet-B7 for 288 px, the paper's supernet for EfficientNet-B2's
# peer (section A.4.1); the setting is that of B4.
_base_ = './efficientnet-b4_8xb96-450e_in1k-224px.py'

model = dict(backbone=dict(arch='b7'), head=dict(in_channels=2560))

train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 288
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 329
test_pipeline[2].crop_size = 288
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
