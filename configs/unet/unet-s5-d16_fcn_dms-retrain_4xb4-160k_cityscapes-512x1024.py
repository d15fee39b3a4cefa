# Retraining of a found UNet, from the weights that the search left.
_base_ = 'mmseg::unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

architecture = _base_.model
subnet = (
    'work_dirs/unet-s5-d16_fcn_dms-search_4xb4-160k_cityscapes-512x1024/'
    'subnet/'
)
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=architecture,
    structure=subnet + 'subnet.yaml',
    init_cfg=dict(type='Pretrained', checkpoint=subnet + 'subnet.pth'),
)
