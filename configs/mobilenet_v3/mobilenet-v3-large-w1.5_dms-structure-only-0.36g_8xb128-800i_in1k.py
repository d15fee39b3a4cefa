# Wider MobileNetV3-large, structure-only search to three quarters of the
# MACs in 800 iterations, as the paper's for ResNet-50 (Table 2); the target
# is ours.
_base_ = [
    'mmpretrain::mobilenet_v3/mobilenet-v3-large_8xb128_in1k.py',
    '../_base_/pipelines/structure_only.py',
]

architecture = dict(
    type='mmrazor.EnlargedModel',
    architecture=_base_.model,
    widen=1.5,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='work_dirs/mobilenet-v3-large-w1.5_8xb128_in1k/epoch_600.pth',
    ),
)
model = dict(_delete_=True, architecture=architecture, **_base_.algorithm)
custom_hooks = [dict(_base_.resource_hook, target='0.36G')]

train_cfg = dict(_delete_=True, **_base_.search_train_cfg)
param_scheduler = []
default_hooks = _base_.search_default_hooks
log_processor = _base_.search_log_processor
