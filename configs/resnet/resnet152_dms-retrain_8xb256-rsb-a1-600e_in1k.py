# Retraining of a subnet of ResNet-152 by mmpretrain's rsb-a1 setting (Table 8
# and section A.4.1).
_base_ = 'mmpretrain::resnet/resnet50_8xb256-rsb-a1-600e_in1k.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

# What the search wrote.
search = 'resnet152_dms-pretrain-free-4g_8xb32-10e_in1k'
structure = f'work_dirs/{search}/subnet/subnet.yaml'

architecture = _base_.model
architecture.backbone.depth = 152
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=architecture,
    structure=structure,
)
