"""Structure-only search, for configs that import their base files.

As :mod:`dms_mmrazor.configs.pretrained`, and the training is short::

    train_cfg = search_train_cfg
    param_scheduler = []
"""

from mmengine.config import read_base

with read_base():
    from .pretrained import *  # noqa: F401, F403

algorithm.update(structure_only=True)  # noqa: F405

# 800 iterations, as in section 4.1.1 of the paper.
search_train_cfg = dict(by_epoch=False, max_iters=800, val_interval=800)
search_default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=200),
    logger=dict(interval=50),
)
search_log_processor = dict(by_epoch=False)
