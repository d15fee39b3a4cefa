"""How to train what a search has found: a command, and its config."""

import os.path as osp
from copy import deepcopy
from glob import glob
from typing import Optional

from mmengine.config import Config
from mmengine.runner import Runner

from dms_mmrazor.files import write_text
from dms_mmrazor.type_names import has_type

CONFIG_FILE = 'retrain.py'

_NOTE = """\
# Training of a found structure with data, optimizer and schedule of its
# search: set `train_cfg` and `param_scheduler` to those of a whole training.
"""


def retrain_command(runner: Runner, folder: str) -> Optional[str]:
    """The command that trains the subnet of a folder from scratch.

    Args:
        runner (Runner): Of the search.
        folder (str): Where the subnet is written.

    Returns:
        str, optional: With the config of retraining that stands beside the
        one of the search, if there is one, otherwise with what
        :func:`write_retrain_config` writes. None without a config.
    """
    if not has_type(runner.cfg.get('model'), 'DMSAlgorithm'):
        return None
    config = _neighbor(runner.cfg.filename)
    if config is None:
        return f'python tools/train.py {osp.join(folder, CONFIG_FILE)}'
    structure = osp.join(folder, 'subnet.yaml')
    return (
        f'python tools/train.py {config} --cfg-options '
        f'model.structure={structure}'
    )


def _neighbor(config: Optional[str]) -> Optional[str]:
    """`net_dms-retrain_….py` beside `net_dms-search_….py`."""
    name, found, _ = osp.basename(config or '').partition('_dms-')
    if not found:
        return None
    pattern = osp.join(osp.dirname(config), f'{name}_dms-retrain*.py')
    configs = sorted(glob(pattern))
    return configs[0] if len(configs) == 1 else None


def write_retrain_config(runner: Runner, folder: str) -> None:
    """Write the config of a training of the subnet, ``retrain.py``.

    Args:
        runner (Runner): Of the search.
        folder (str): Where the subnet is.
    """
    if not has_type(runner.cfg.get('model'), 'DMSAlgorithm'):
        return
    cfg: Config = deepcopy(runner.cfg)
    cfg.model = dict(
        type='mmrazor.DMSSubModel',
        architecture=cfg.model.architecture,
        structure=osp.abspath(osp.join(folder, 'subnet.yaml')),
    )
    cfg.custom_hooks = [
        hook
        for hook in cfg.get('custom_hooks') or []
        if not has_type(hook, 'ResourceHook')
    ]
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    plugin = 'dms_mmrazor.plugin'
    cfg.custom_imports = dict(
        imports=list(dict.fromkeys([plugin, *imports])),
        allow_failed_imports=False,
    )
    # That of `subnet-50` is `retrain-50`.
    name = osp.basename(osp.abspath(folder)).replace('subnet', 'retrain')
    cfg.work_dir = osp.join(runner.work_dir, name)
    cfg.load_from, cfg.resume = None, False
    write_text(osp.join(folder, CONFIG_FILE), _NOTE + cfg.pretty_text)
