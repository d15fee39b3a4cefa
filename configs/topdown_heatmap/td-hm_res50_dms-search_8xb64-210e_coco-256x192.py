# Keypoints by heatmaps, with a ResNet-50: half of its MACs at 256x192,
# searched in mmpose's own schedule from the trained estimator.
_base_ = [
    'mmpose::body_2d_keypoint/topdown_heatmap/coco/'
    'td-hm_res50_8xb64-210e_coco-256x192.py',
    '../_base_/pipelines/pretrained.py',
]

algorithm = _base_.algorithm
algorithm.mutator.parse_cfg = dict(
    type='DMSChannelAnalyzer', demo_input=(1, 3, 256, 192)
)
architecture = _base_.model
architecture.backbone.init_cfg = None
architecture.init_cfg = dict(
    type='Pretrained',
    checkpoint='https://download.openmmlab.com/mmpose/v1/body_2d_keypoint/topdown_heatmap/coco/'
    'td-hm_res50_8xb64-210e_coco-256x192-04af38ce_20220923.pth',
)
model = dict(_delete_=True, architecture=architecture, **algorithm)

custom_hooks = [
    dict(type='SyncBuffersHook'),
    dict(_base_.resource_hook, target=0.5),
]
