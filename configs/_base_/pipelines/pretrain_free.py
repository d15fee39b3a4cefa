# Pretrain-free search, the paper's default (Table 1): start from random
# weights, train all of them, retrain the subnet from scratch.
#
# The lines that turn any mmpretrain config into a search:
#
#   _base_ = ['mmpretrain::resnet/resnet50_8xb32_in1k.py',
#             'dms_mmrazor::_base_/pipelines/pretrain_free.py']
#   model = dict(_delete_=True, architecture=_base_.model, **_base_.algorithm)
#   optim_wrapper = _base_.search_optim_wrapper
#   custom_hooks = [dict(_base_.resource_hook, target='1G')]
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

algorithm = dict(
    type='mmrazor.DMSAlgorithm', mutator=dict(type='mmrazor.DMSMutator')
)

# Pruning ratios have a parameter group of their own and move by lr · gradient
# whatever the optimizer is. Table 15: a small `loss_weight`, then an `lr` that
# reaches the target early. One step of the resource loss changes log MACs by
# lr · loss_weight · |∂ log MACs / ∂a|²: for ResNet-50 0.1 % at the start and
# 0.4 % at the target. The gradient of other networks is larger: there a
# smaller lr keeps their steps below 1 %.
search_optim_wrapper = dict(
    constructor='mmrazor.DMSOptimWrapperConstructor',
    paramwise_cfg=dict(structure=dict(lr=5e-3)),
)

resource_hook = dict(
    type='mmrazor.ResourceHook', target=0.5, loss_weight=1.0, decay=0.8
)
