# ResNet-152, pretrain-free search to 1 G MACs (Table 12).
_base_ = './resnet152_dms-pretrain-free-4g_8xb32-10e_in1k.py'

custom_hooks = [dict(_base_.resource_hook, target='1G')]
