# Retraining of a found PSPNet, from the weights that the search left.
_base_ = 'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

architecture = _base_.model
architecture.pretrained = None
subnet = 'work_dirs/pspnet_r50-d8_dms-search_4xb4-80k_ade20k-512x512/subnet/'
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=architecture,
    structure=subnet + 'subnet.yaml',
    init_cfg=dict(type='Pretrained', checkpoint=subnet + 'subnet.pth'),
)
