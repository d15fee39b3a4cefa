# Test of a found subnet with the supernet's weights and its own norms:
#   python tools/test.py THIS_FILE work_dirs/…/subnet/subnet.pth
_base_ = './ofa-mobilenetv3_8xb64_in1k.py'

search = 'ofa-mobilenetv3_dms-structure-only-0.45g_8xb64-800i_in1k'
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    structure=f'work_dirs/{search}/subnet/subnet.yaml',
)
custom_hooks = [dict(type='mmrazor.RecalibrateNormsHook', images=4096)]
