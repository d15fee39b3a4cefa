# ResNet-50, pretrained search to 1 G MACs over ten epochs (Table 12).
_base_ = [
    'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    '../_base_/pipelines/pretrained.py',
]

architecture = _base_.model
architecture.init_cfg = dict(
    type='Pretrained',
    checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/'
    'resnet50_8xb32_in1k_20210831-ea4938fc.pth',
)
model = dict(_delete_=True, architecture=architecture, **_base_.algorithm)

# A tenth of the learning rate that trained the supernet.
optim_wrapper = dict(optimizer=dict(lr=0.01))
custom_hooks = [dict(_base_.resource_hook, target='1G')]

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
