# Retraining of a found RegNet by mmpretrain's own schedule.
_base_ = 'mmpretrain::regnet/regnetx-3.2gf_8xb64_in1k.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

# What the search wrote.
search = 'regnetx-3.2gf_dms-pretrain-free-1.6g_8xb64-10e_in1k'
structure = f'work_dirs/{search}/subnet/subnet.yaml'
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    structure=structure,
)
