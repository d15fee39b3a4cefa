# Retraining of a found EfficientNet in timm's setting (section A.4.1).
_base_ = './efficientnet-b4_8xb96-450e_in1k-224px.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

# What the search wrote.
search = 'efficientnet-b4_dms-pretrain-free-0.39g_8xb96-30e_in1k-224px'
structure = f'work_dirs/{search}/subnet/subnet.yaml'
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    structure=structure,
)
