# YOLOv5-s: half of its MACs at 640x640, searched in a tenth of the epochs.
_base_ = [
    'mmyolo::yolov5/yolov5_s-v61_syncbn_fast_8xb16-300e_coco.py',
    '../_base_/pipelines/pretrain_free.py',
]

algorithm = _base_.algorithm
algorithm.mutator.parse_cfg = dict(
    type='DMSChannelAnalyzer', demo_input=(1, 3, 640, 640)
)
model = dict(_delete_=True, architecture=_base_.model, **algorithm)

max_epochs = 30
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(param_scheduler=dict(max_epochs=max_epochs))
custom_hooks = [
    *_base_.custom_hooks,
    dict(_base_.resource_hook, target='4G'),
]
