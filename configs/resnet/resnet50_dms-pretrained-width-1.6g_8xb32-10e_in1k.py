# ResNet-50, pretrained search of widths alone to 1.6 G MACs: the comparison
# with pruning methods (Table 5). The table names no epochs; ten are as in
# section A.4.1.
_base_ = './resnet50_dms-pretrained-1g_8xb32-10e_in1k.py'

model = dict(mutator=dict(depth_unit_cfg=None))
custom_hooks = [dict(_base_.resource_hook, target='1.6G')]
