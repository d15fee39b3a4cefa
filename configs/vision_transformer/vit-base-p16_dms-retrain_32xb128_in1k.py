# Retraining of a found ViT by mmpretrain's own schedule.
_base_ = 'mmpretrain::vision_transformer/vit-base-p16_32xb128-mae_in1k.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

# What the search wrote.
search = 'vit-base-p16_dms-pretrain-free-4.6g_32xb128-30e_in1k'
structure = f'work_dirs/{search}/subnet/subnet.yaml'
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    structure=structure,
)
