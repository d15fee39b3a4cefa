# The supernet, trained by mmpretrain's setting of MobileNetV2: needed only for
# the pipelines that start from a trained supernet.
_base_ = [
    '../_base_/models/mobilenet-v2-w1.5-d2.py',
    'mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py',
    'mmpretrain::_base_/schedules/imagenet_bs256_epochstep.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)
