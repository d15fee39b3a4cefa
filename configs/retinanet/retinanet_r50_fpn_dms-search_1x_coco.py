# RetinaNet: half of its MACs at 1333x800, searched in mmdet's 1x schedule from
# the trained detector.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    '../_base_/pipelines/pretrained.py',
]

algorithm = _base_.algorithm
algorithm.mutator.parse_cfg = dict(
    type='DMSChannelAnalyzer', demo_input=(1, 3, 800, 1344)
)
architecture = _base_.model
architecture.init_cfg = dict(
    type='Pretrained',
    checkpoint='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r50_fpn_1x_coco/'
    'retinanet_r50_fpn_1x_coco_20200130-c2398f9e.pth',
)
# All weights train.
architecture.backbone.frozen_stages = -1
model = dict(_delete_=True, architecture=architecture, **algorithm)

custom_hooks = [dict(_base_.resource_hook, target=0.5)]
