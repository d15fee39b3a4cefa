# Retraining of a found YOLOv5 by mmyolo's own schedule.
_base_ = 'mmyolo::yolov5/yolov5_s-v61_syncbn_fast_8xb16-300e_coco.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

structure = (
    'work_dirs/yolov5_s_dms-search-4g_syncbn_fast_8xb16-30e_coco/subnet/'
    'subnet.yaml'
)
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    backbone=dict(),  # mmdet's init_detector looks for one
    structure=structure,
)
