"""Pretrain-free search, for configs that import their base files.

The same as ``configs/_base_/pipelines/pretrain_free.py``::

    from mmengine.config import read_base

    with read_base():
        from .my_training import *
        from dms_mmrazor.configs.pretrain_free import *

    model = dict(architecture=model, **algorithm)
    resource_hook.update(target='1G')
    custom_hooks = [resource_hook]
"""

from dms_mmrazor.engine.hooks import ResourceHook
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.models.mutators import DMSMutator

algorithm = dict(type=DMSAlgorithm, mutator=dict(type=DMSMutator))

resource_hook = dict(type=ResourceHook, target=0.5, loss_weight=1.0, decay=0.8)
