# EfficientNet-B4, pretrain-free search to 0.35 G MACs (Table 4).
_base_ = './efficientnet-b4_dms-pretrain-free-0.39g_8xb96-30e_in1k-224px.py'

custom_hooks = _base_.custom_hooks
custom_hooks[-1].target = '0.35G'
