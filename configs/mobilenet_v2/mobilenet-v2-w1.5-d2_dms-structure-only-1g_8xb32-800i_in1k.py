# Enlarged MobileNetV2, structure-only search to three quarters of the
# MACs in 800 iterations, as the paper's for ResNet-50 (Table 2); the target
# is ours.
_base_ = [
    '../_base_/models/mobilenet-v2-w1.5-d2.py',
    'mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py',
    'mmpretrain::_base_/schedules/imagenet_bs256_epochstep.py',
    'mmpretrain::_base_/default_runtime.py',
    '../_base_/pipelines/structure_only.py',
]

# What was doubled from a single block may become one again (ours).
algorithm = _base_.algorithm
algorithm.mutator.depth_unit_cfg = dict(
    type='DMSDepthUnit',
    units={
        'backbone.layer1': dict(init_args=dict(min_blocks=0)),
        'backbone.layer7': dict(init_args=dict(min_blocks=0)),
    },
)

architecture = _base_.model
architecture.init_cfg = dict(
    type='Pretrained',
    checkpoint='work_dirs/mobilenet-v2-w1.5-d2_8xb32_in1k/epoch_300.pth',
)
model = dict(_delete_=True, architecture=architecture, **algorithm)
custom_hooks = [dict(_base_.resource_hook, target='1G')]

train_cfg = dict(_delete_=True, **_base_.search_train_cfg)
param_scheduler = []
default_hooks = _base_.search_default_hooks
log_processor = _base_.search_log_processor
