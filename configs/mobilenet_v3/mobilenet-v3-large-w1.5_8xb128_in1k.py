# MobileNetV3-large with 1.5 times the channels (0.48 G MACs; ours, as the
# paper's MobileNetV2), trained by mmpretrain's setting: needed only for the
# pipelines that start from a trained supernet.
_base_ = 'mmpretrain::mobilenet_v3/mobilenet-v3-large_8xb128_in1k.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

model = dict(
    _delete_=True,
    type='mmrazor.EnlargedModel',
    architecture=_base_.model,
    widen=1.5,
)
