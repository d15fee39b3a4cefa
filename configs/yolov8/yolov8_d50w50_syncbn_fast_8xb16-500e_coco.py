# The paper's supernet of YOLOv8-n: deepen and widen factor 0.5 instead of 0.33
# and 0.25 (appendix A.4.3). Training it plainly makes a supernet for the
# pretrained pipelines.
_base_ = 'mmyolo::yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco.py'

deepen_factor = 0.5
widen_factor = 0.5

model = dict(
    backbone=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    neck=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    bbox_head=dict(head_module=dict(widen_factor=widen_factor)),
)
