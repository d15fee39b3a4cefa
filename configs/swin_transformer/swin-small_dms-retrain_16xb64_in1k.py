# Retraining of a found Swin transformer by mmpretrain's own schedule.
_base_ = 'mmpretrain::swin_transformer/swin-small_16xb64_in1k.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

# What the search wrote.
search = 'swin-small_dms-pretrain-free-4.3g_16xb64-30e_in1k'
structure = f'work_dirs/{search}/subnet/subnet.yaml'
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    structure=structure,
)
