# RTMDet-s: half of its MACs at 640x640, searched in a tenth of the epochs.
_base_ = [
    'mmyolo::rtmdet/rtmdet_s_syncbn_fast_8xb32-300e_coco.py',
    '../_base_/pipelines/pretrain_free.py',
]

algorithm = _base_.algorithm
algorithm.mutator.parse_cfg = dict(
    type='DMSChannelAnalyzer', demo_input=(1, 3, 640, 640)
)
model = dict(_delete_=True, architecture=_base_.model, **algorithm)

# The last two epochs with less augmentation.
max_epochs = 30
num_epochs_stage2 = 2
train_cfg = dict(
    max_epochs=max_epochs,
    dynamic_intervals=[(max_epochs - num_epochs_stage2, 1)],
)
param_scheduler = _base_.param_scheduler
param_scheduler[1].begin = param_scheduler[1].T_max = max_epochs // 2
param_scheduler[1].end = max_epochs
custom_hooks = _base_.custom_hooks
custom_hooks[1].switch_epoch = max_epochs - num_epochs_stage2
custom_hooks.append(dict(_base_.resource_hook, target='7G'))
