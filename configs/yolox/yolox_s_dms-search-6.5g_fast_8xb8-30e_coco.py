# YOLOX-s: half of its MACs at 640x640, searched in a tenth of the epochs.
_base_ = [
    'mmyolo::yolox/yolox_s_fast_8xb8-300e_coco.py',
    '../_base_/pipelines/pretrain_free.py',
]

algorithm = _base_.algorithm
algorithm.mutator.parse_cfg = dict(
    type='DMSChannelAnalyzer', demo_input=(1, 3, 640, 640)
)
model = dict(_delete_=True, architecture=_base_.model, **algorithm)

# The last two epochs without mosaic and with the L1 loss, one of warm-up.
max_epochs = 30
num_last_epochs = 2
train_cfg = dict(
    max_epochs=max_epochs,
    dynamic_intervals=[(max_epochs - num_last_epochs, 1)],
)
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = param_scheduler[1].begin = 1
param_scheduler[1].end = param_scheduler[1].T_max = (
    max_epochs - num_last_epochs
)
param_scheduler[2].begin = max_epochs - num_last_epochs
param_scheduler[2].end = max_epochs
custom_hooks = _base_.custom_hooks
custom_hooks[0].num_last_epochs = num_last_epochs
custom_hooks.append(dict(_base_.resource_hook, target='6.5G'))
