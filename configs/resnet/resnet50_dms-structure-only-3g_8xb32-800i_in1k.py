# ResNet-50, structure-only search to 3 G MACs in 800 iterations (Table 2).
_base_ = [
    'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    '../_base_/pipelines/structure_only.py',
]

architecture = _base_.model
architecture.init_cfg = dict(
    type='Pretrained',
    checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/'
    'resnet50_8xb32_in1k_20210831-ea4938fc.pth',
)
model = dict(_delete_=True, architecture=architecture, **_base_.algorithm)
custom_hooks = [dict(_base_.resource_hook, target='3G')]

train_cfg = dict(_delete_=True, **_base_.search_train_cfg)
param_scheduler = []
default_hooks = _base_.search_default_hooks
log_processor = _base_.search_log_processor
