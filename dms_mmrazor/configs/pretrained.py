"""Pretrained search, for configs that import their base files.

As :mod:`dms_mmrazor.configs.pretrain_free`, and the config names the
supernet's checkpoint::

    model.architecture.init_cfg = dict(type='Pretrained', checkpoint='….pth')
"""

from mmengine.config import read_base

with read_base():
    from .pretrain_free import *  # noqa: F401, F403
