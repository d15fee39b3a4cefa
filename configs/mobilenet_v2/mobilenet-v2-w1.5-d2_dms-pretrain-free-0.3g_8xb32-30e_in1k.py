# The enlarged MobileNetV2 (1.4 G MACs), pretrain-free search to 0.3 G, the
# MACs of MobileNetV2 (Table 8 and section A.4.1).
_base_ = [
    '../_base_/models/mobilenet-v2-w1.5-d2.py',
    'mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py',
    'mmpretrain::_base_/schedules/imagenet_bs256_epochstep.py',
    'mmpretrain::_base_/default_runtime.py',
    '../_base_/pipelines/pretrain_free.py',
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

model = dict(_delete_=True, architecture=_base_.model, **algorithm)
custom_hooks = [dict(_base_.resource_hook, target='0.3G')]

# 30 epochs (section A.4.1), in which the learning rate falls as far as in the
# 300 of the training.
train_cfg = dict(max_epochs=30)
param_scheduler = dict(gamma=0.98**10)
