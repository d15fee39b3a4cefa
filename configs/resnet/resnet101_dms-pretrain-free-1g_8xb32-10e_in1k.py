# ResNet-101, pretrain-free search to 1 G MACs (Table 12).
_base_ = './resnet50_dms-pretrain-free-1g_8xb32-10e_in1k.py'

model = dict(architecture=dict(backbone=dict(depth=101)))
