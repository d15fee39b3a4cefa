# Retraining of a found YOLOv8 by mmyolo's own schedule of YOLOv8-n.
_base_ = './yolov8_d50w50_syncbn_fast_8xb16-500e_coco.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

# What the search wrote.
structure = (
    'work_dirs/yolov8_d50w50_dms-pretrain-free-4.2g_syncbn_fast_8xb16-30e_'
    'coco/subnet/subnet.yaml'
)
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    backbone=dict(),  # mmdet's init_detector looks for one
    structure=structure,
)
