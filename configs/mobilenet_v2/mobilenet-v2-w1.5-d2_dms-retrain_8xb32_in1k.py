# Retraining of a found MobileNetV2 by mmpretrain's setting (section A.4.1).
_base_ = './mobilenet-v2-w1.5-d2_8xb32_in1k.py'

# What the search wrote.
search = 'mobilenet-v2-w1.5-d2_dms-pretrain-free-0.3g_8xb32-30e_in1k'
structure = f'work_dirs/{search}/subnet/subnet.yaml'
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    structure=structure,
)
