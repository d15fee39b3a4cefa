# ConvNeXt-S, structure-only search to three quarters of the MACs in
# 800 iterations, as the paper's for ResNet-50 (Table 2); the target is ours.
_base_ = [
    'mmpretrain::convnext/convnext-small_32xb128_in1k.py',
    '../_base_/pipelines/structure_only.py',
]

architecture = _base_.model
architecture.init_cfg = dict(
    type='Pretrained',
    checkpoint='https://download.openmmlab.com/mmclassification/v0/convnext/'
    'convnext-small_32xb128_in1k_20221207-4ab7052c.pth',
)
model = dict(_delete_=True, architecture=architecture, **_base_.algorithm)
custom_hooks = [dict(_base_.resource_hook, target='6.5G')]

train_cfg = dict(_delete_=True, **_base_.search_train_cfg)
param_scheduler = []
default_hooks = _base_.search_default_hooks
log_processor = _base_.search_log_processor
