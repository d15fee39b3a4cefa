# Pretrain-free search, the paper's default (Table 1): start from random
# weights, train all of them, retrain the subnet from scratch.
#
# The lines that turn any mmpretrain config into a search:
#
#   _base_ = ['mmpretrain::resnet/resnet50_8xb32_in1k.py',
#             'dms_mmrazor::_base_/pipelines/pretrain_free.py']
#   model = dict(_delete_=True, architecture=_base_.model, **_base_.algorithm)
#   custom_hooks = [dict(_base_.resource_hook, target='1G')]
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

# The structure is not in the optimizer and needs no learning rate: it follows
# the target by prices, see `structure_step` of DMSAlgorithm.
algorithm = dict(
    type='mmrazor.DMSAlgorithm', mutator=dict(type='mmrazor.DMSMutator')
)

resource_hook = dict(
    type='mmrazor.ResourceHook', target=0.5, loss_weight=1.0, decay=0.8
)
