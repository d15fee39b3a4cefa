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

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        _base_.resource_hook,
        target=0.33,
        interval=26,
    ),
]
