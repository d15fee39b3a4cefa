# Retraining of a found YOLOX by mmyolo's own schedule.
_base_ = 'mmyolo::yolox/yolox_s_fast_8xb8-300e_coco.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

structure = (
    'work_dirs/yolox_s_dms-search-6.5g_fast_8xb8-30e_coco/subnet/subnet.yaml'
)
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    backbone=dict(),  # mmdet's init_detector looks for one
    structure=structure,
)
