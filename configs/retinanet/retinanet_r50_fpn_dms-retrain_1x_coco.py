# Retraining of a found RetinaNet, from the weights that the search left.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

architecture = _base_.model
architecture.backbone.frozen_stages = -1  # as in the search
subnet = 'work_dirs/retinanet_r50_fpn_dms-search_1x_coco/subnet/'
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=architecture,
    backbone=dict(),  # mmdet's init_detector looks for one
    structure=subnet + 'subnet.yaml',
    init_cfg=dict(type='Pretrained', checkpoint=subnet + 'subnet.pth'),
)
