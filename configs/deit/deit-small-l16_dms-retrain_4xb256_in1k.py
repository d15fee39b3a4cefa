# Retraining of a found DeiT by mmpretrain's setting, which is Swin's
# (section A.4.1).
_base_ = './deit-small-l16_4xb256_in1k.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

# What the search wrote.
search = 'deit-small-l16_dms-pretrain-free-1.3g_4xb256-30e_in1k'
structure = f'work_dirs/{search}/subnet/subnet.yaml'
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    structure=structure,
)
