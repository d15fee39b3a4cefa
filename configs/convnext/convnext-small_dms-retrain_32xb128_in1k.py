# Retraining of a found ConvNeXt by mmpretrain's own schedule.
_base_ = 'mmpretrain::convnext/convnext-small_32xb128_in1k.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

# What the search wrote.
search = 'convnext-small_dms-pretrain-free-4.4g_32xb128-30e_in1k'
structure = f'work_dirs/{search}/subnet/subnet.yaml'
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    structure=structure,
)
