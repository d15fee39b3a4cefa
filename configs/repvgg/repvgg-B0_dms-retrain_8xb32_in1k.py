# Retraining of a found RepVGG by mmpretrain's own schedule.
_base_ = 'mmpretrain::repvgg/repvgg-B0_8xb32_in1k.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

# What the search wrote.
search = 'repvgg-B0_dms-pretrain-free-1.5g_8xb32-12e_in1k'
structure = f'work_dirs/{search}/subnet/subnet.yaml'
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    structure=structure,
)
