# Retraining of a subnet of ResNet-152 by mmpretrain's own schedule (section
# A.4.1).
_base_ = 'mmpretrain::resnet/resnet152_8xb32_in1k.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

# What the search wrote.
search = 'resnet152_dms-pretrain-free-4g_8xb32-10e_in1k'
structure = f'work_dirs/{search}/subnet/subnet.yaml'
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    structure=structure,
)
