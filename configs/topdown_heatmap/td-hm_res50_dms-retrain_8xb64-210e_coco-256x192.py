# Retraining of a found pose estimator, from the weights that the search left.
_base_ = (
    'mmpose::body_2d_keypoint/topdown_heatmap/coco/'
    'td-hm_res50_8xb64-210e_coco-256x192.py'
)
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

architecture = _base_.model
architecture.backbone.init_cfg = None
subnet = 'work_dirs/td-hm_res50_dms-search_8xb64-210e_coco-256x192/subnet/'
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=architecture,
    structure=subnet + 'subnet.yaml',
    init_cfg=dict(type='Pretrained', checkpoint=subnet + 'subnet.pth'),
)
