# Swin-S, structure-only search to three quarters of the MACs in
# 800 iterations, as the paper's for ResNet-50 (Table 2); the target is ours.
_base_ = [
    'mmpretrain::swin_transformer/swin-small_16xb64_in1k.py',
    '../_base_/pipelines/structure_only.py',
]

architecture = _base_.model
architecture.init_cfg = dict(
    type='Pretrained',
    checkpoint='https://download.openmmlab.com/mmclassification/v0/swin-transformer/'
    'swin_small_224_b16x64_300e_imagenet_20210615_110219-7f9d988b.pth',
)
model = dict(_delete_=True, architecture=architecture, **_base_.algorithm)
custom_hooks = [dict(_base_.resource_hook, target='6.4G')]

train_cfg = dict(_delete_=True, **_base_.search_train_cfg)
param_scheduler = []
default_hooks = _base_.search_default_hooks
log_processor = _base_.search_log_processor
