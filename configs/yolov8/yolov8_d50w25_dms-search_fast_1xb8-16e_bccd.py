# Search on BCCD: a third of the MACs, from random weights.
_base_ = [
    './yolov8_d50w25_fast_1xb8-16e_bccd.py',
    '../_base_/pipelines/pretrain_free.py',
]

algorithm = _base_.algorithm
algorithm.mutator.parse_cfg = dict(
    type='DMSChannelAnalyzer', demo_input=(1, 3, *_base_.img_scale)
)
model = dict(_delete_=True, architecture=_base_.model, **algorithm)

# mmyolo's YOLO losses are summed over the images of a step: the weight of the
# resource loss grows with them, the structural rate shrinks. A search of 416
# iterations needs a large rate.
images_per_step = _base_.train_batch_size_per_gpu
optim_wrapper = dict(
    _base_.search_optim_wrapper,
    paramwise_cfg=dict(
        constructor='YOLOv5OptimizerConstructor',
        structure=dict(lr=1e-1 / images_per_step),
    ),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        _base_.resource_hook,
        target=0.33,
        loss_weight=1.0 * images_per_step,
        interval=26,
    ),
]
