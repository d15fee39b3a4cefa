# Retraining of a found ResNeXt by mmpretrain's own schedule.
_base_ = 'mmpretrain::resnext/resnext101-32x4d_8xb32_in1k.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

# What the search wrote.
search = 'resnext101-32x4d_dms-pretrain-free-4.2g_8xb32-10e_in1k'
structure = f'work_dirs/{search}/subnet/subnet.yaml'
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    structure=structure,
)
