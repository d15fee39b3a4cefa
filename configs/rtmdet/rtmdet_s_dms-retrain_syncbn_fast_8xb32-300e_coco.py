# Retraining of a found RTMDet by mmyolo's own schedule. The checkpoint of the
# backbone that RTMDet-s starts from does not fit any more.
_base_ = 'mmyolo::rtmdet/rtmdet_s_syncbn_fast_8xb32-300e_coco.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

structure = (
    'work_dirs/rtmdet_s_dms-search-7g_syncbn_fast_8xb32-30e_coco/subnet/'
    'subnet.yaml'
)
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    backbone=dict(),  # mmdet's init_detector looks for one
    structure=structure,
)
