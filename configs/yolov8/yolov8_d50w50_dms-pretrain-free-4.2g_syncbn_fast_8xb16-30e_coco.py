# YOLOv8-n's search of the paper (Table 9): 4.2 G MACs at 640x640, 30 epochs
# with YOLOv8-n's training setting, from random weights.
_base_ = [
    './yolov8_d50w50_syncbn_fast_8xb16-500e_coco.py',
    '../_base_/pipelines/pretrain_free.py',
]

algorithm = _base_.algorithm
algorithm.mutator.parse_cfg = dict(
    type='DMSChannelAnalyzer', demo_input=(1, 3, 640, 640)
)
model = dict(_delete_=True, architecture=_base_.model, **algorithm)

max_epochs = 30
train_cfg = dict(
    max_epochs=max_epochs,
    dynamic_intervals=[(max_epochs - _base_.close_mosaic_epochs, 1)],
)
default_hooks = dict(param_scheduler=dict(max_epochs=max_epochs))
custom_hooks = _base_.custom_hooks
custom_hooks[1].switch_epoch = max_epochs - _base_.close_mosaic_epochs
custom_hooks.append(dict(_base_.resource_hook, target='4.2G'))
