"""Train in several processes without a GPU.

Symptom: ``--launcher pytorch`` fails on a machine without a GPU, whatever
the backend: mmengine gives each process a GPU before it opens the process
group, and wraps the model with ``device_ids``.
Seen with: mmengine 0.10.7, all versions of torch.
Drop when: mmengine launches with ``backend='gloo'`` on such a machine.
"""

import torch
from mmengine.config import Config


def use_cpu_processes(cfg: Config) -> None:
    """Open the process group and choose the wrapper of the model.

    Args:
        cfg (Config): Config of a runner, which leaves an open process group
            alone; it is changed in place.
    """
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False)
    if 'find_unused_parameters' in cfg:
        wrapper['find_unused_parameters'] = cfg.find_unused_parameters
    wrapper.update(cfg.get('model_wrapper_cfg') or {})
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)
