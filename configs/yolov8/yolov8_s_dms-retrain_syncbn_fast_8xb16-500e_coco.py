# What the structure-only search of YOLOv8-s has found: to test it as it is,
# or to train it further by YOLOv8-s's own schedule.
_base_ = 'mmyolo::yolov8/yolov8_s_syncbn_fast_8xb16-500e_coco.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

subnet = (
    'work_dirs/yolov8_s_dms-structure-only-10.7g_syncbn_fast_8xb16-800i_coco/'
    'subnet/'
)
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    backbone=dict(),  # mmdet's init_detector looks for one
    structure=subnet + 'subnet.yaml',
    init_cfg=dict(type='Pretrained', checkpoint=subnet + 'subnet.pth'),
)
