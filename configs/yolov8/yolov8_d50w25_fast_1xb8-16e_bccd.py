# A YOLOv8 between n and s in depth, on BCCD (blood cells: 205 + 87 images, 3
# classes) at 160x160, with all of mmyolo's training but its length. The data
# are COCO json: data/bccd/{annotations/{train,val}.json,images/*.jpg}.
_base_ = 'mmyolo::yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco.py'

# Elsewhere: the environment variable BCCD_ROOT.
data_root = '{{$BCCD_ROOT:data/bccd/}}'
class_name = ('WBC', 'RBC', 'Platelets')
num_classes = len(class_name)
img_scale = (160, 160)
train_batch_size_per_gpu = 8
max_epochs = 16
close_mosaic_epochs = 2

deepen_factor = 0.5
widen_factor = 0.25
model = dict(
    backbone=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    neck=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    bbox_head=dict(
        head_module=dict(widen_factor=widen_factor, num_classes=num_classes)
    ),
    train_cfg=dict(assigner=dict(num_classes=num_classes)),
)

affine = dict(
    type='YOLOv5RandomAffine',
    max_rotate_degree=0.0,
    max_shear_degree=0.0,
    scaling_ratio_range=(1 - _base_.affine_scale, 1 + _base_.affine_scale),
    max_aspect_ratio=_base_.max_aspect_ratio,
    border_val=(114, 114, 114),
)
train_pipeline = [
    *_base_.pre_transform,
    dict(
        type='Mosaic',
        img_scale=img_scale,
        pad_val=114.0,
        pre_transform=_base_.pre_transform,
    ),
    dict(affine, border=(-img_scale[0] // 2, -img_scale[1] // 2)),
    *_base_.last_transform,
]
letter_resize = [
    dict(type='YOLOv5KeepRatioResize', scale=img_scale),
    dict(type='LetterResize', scale=img_scale, pad_val=dict(img=114)),
]
train_pipeline_stage2 = [
    *_base_.pre_transform,
    *letter_resize,
    affine,
    *_base_.last_transform,
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    *letter_resize,
    *_base_.test_pipeline[-2:],
]

dataset = dict(
    data_root=data_root,
    metainfo=dict(classes=class_name),
    data_prefix=dict(img='images/'),
)
train_dataloader = dict(
    batch_size=train_batch_size_per_gpu,
    num_workers=1,
    dataset=dict(
        dataset, ann_file='annotations/train.json', pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        dataset, ann_file='annotations/val.json', pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(batch_size_per_gpu=train_batch_size_per_gpu)
)
train_cfg = dict(
    max_epochs=max_epochs,
    val_interval=max_epochs,
    dynamic_intervals=[(max_epochs, 1)],
)
default_hooks = dict(
    logger=dict(interval=26),
    # A warm-up of two epochs: the usual minimum is longer than the training.
    param_scheduler=dict(
        max_epochs=max_epochs, warmup_epochs=2, warmup_mim_iter=1
    ),
    checkpoint=dict(interval=max_epochs, save_best=None, max_keep_ckpts=1),
)
custom_hooks = [
    # It forgets the random start within the training.
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.01,
        gamma=100,
        update_buffers=True,
        strict_load=False,
        priority=49,
    ),
    dict(
        type='mmdet.PipelineSwitchHook',
        switch_epoch=max_epochs - close_mosaic_epochs,
        switch_pipeline=train_pipeline_stage2,
    ),
]
randomness = dict(seed=0)
