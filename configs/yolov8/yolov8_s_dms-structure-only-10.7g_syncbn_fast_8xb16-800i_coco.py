# YOLOv8-s, structure-only search to three quarters of its MACs at 640x640 in
# 800 iterations: only pruning ratios train, there is no retraining.
_base_ = [
    'mmyolo::yolov8/yolov8_s_syncbn_fast_8xb16-500e_coco.py',
    '../_base_/pipelines/structure_only.py',
]

algorithm = _base_.algorithm
algorithm.mutator.parse_cfg = dict(
    type='DMSChannelAnalyzer', demo_input=(1, 3, 640, 640)
)
architecture = _base_.model
architecture.init_cfg = dict(
    type='Pretrained',
    checkpoint='https://download.openmmlab.com/mmyolo/v0/yolov8/'
    'yolov8_s_syncbn_fast_8xb16-500e_coco/'
    'yolov8_s_syncbn_fast_8xb16-500e_coco_20230117_180101-5aa5f0f1.pth',
)
model = dict(_delete_=True, architecture=architecture, **algorithm)

# The images that the retraining would end with: no mosaic. No average of
# weights: they stay what they are.
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline_stage2))
train_cfg = dict(_delete_=True, **_base_.search_train_cfg)
default_hooks = _base_.search_default_hooks
default_hooks.param_scheduler = None
log_processor = _base_.search_log_processor
custom_hooks = [dict(_base_.resource_hook, target='10.7G')]
