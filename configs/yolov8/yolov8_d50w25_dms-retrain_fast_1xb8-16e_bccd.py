# Training of a structure found on BCCD: the plain training's config.
_base_ = './yolov8_d50w25_fast_1xb8-16e_bccd.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    backbone=dict(),  # mmdet's init_detector looks for one
    structure='work_dirs/yolov8_d50w25_dms-search_fast_1xb8-16e_bccd/subnet/'
    'subnet.yaml',
)
