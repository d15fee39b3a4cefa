# Retraining of a found MobileNetV3 by mmpretrain's own schedule.
_base_ = './mobilenet-v3-large-w1.5_8xb128_in1k.py'

# What the search wrote.
search = 'mobilenet-v3-large-w1.5_dms-pretrain-free-0.22g_8xb128-30e_in1k'
structure = f'work_dirs/{search}/subnet/subnet.yaml'
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    structure=structure,
)
