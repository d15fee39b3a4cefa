"""How to train what a search has found: a command, and its config."""

import os.path as osp
import shlex
from copy import deepcopy
from glob import glob
from typing import Any, Dict, List, Mapping, Optional

from mmengine.config import Config
from mmengine.runner import Runner

from dms_mmrazor.files import write_text
from dms_mmrazor.models.algorithms.sub_model import find_sub_model
from dms_mmrazor.type_names import has_type

CONFIG_FILE = 'retrain.py'

RETRAIN, FINETUNE = 'retrain', 'finetune'
"""Trainings of a subnet: from scratch, and of its weights by a teacher."""

_FINETUNE_NOTE = """\
# Finetuning of a found structure with the weights and the teacher of its
# search, its data and optimizer: set `train_cfg`, `param_scheduler` and, if
# the search froze the weights, `optim_wrapper` to those of a finetuning.
"""

_NOTE = """\
# Training of a found structure with data, optimizer and schedule of its
# search: set `train_cfg` and `param_scheduler` to those of a whole training.
"""


def retrain_command(runner: Runner, folder: str) -> Optional[str]:
    """The command that trains the subnet of a folder.

    Args:
        runner (Runner): Of the search.
        folder (str): Where the subnet is written.

    Returns:
        str, optional: With the config of retraining or finetuning that
        stands beside the one of the search, if there is one, otherwise with
        what :func:`write_retrain_config` writes. None without a config.
    """
    if not has_type(runner.cfg.get('model'), 'DMSAlgorithm'):
        return None
    config = _neighbor(runner.cfg.filename, finetunes(runner.cfg))
    options = [] if config is None else _options(config, folder)
    if not options:
        return f'python tools/train.py {osp.join(folder, CONFIG_FILE)}'
    # The neighbor reads the same paths from the environment.
    settings = ''.join(
        f'{name}={shlex.quote(value)} '
        for name, value in runner.cfg.env_variables.items()
    )
    return (
        f'{settings}python tools/train.py {config} --cfg-options '
        f'{" ".join(options)}'
    )


def finetunes(cfg: Mapping[str, Any]) -> bool:
    """Whether what a search finds goes on with its weights and its teacher.

    Args:
        cfg (Mapping): Config of the search.
    """
    return (cfg.get('model') or {}).get('distill') is not None


def _options(config: str, folder: str) -> List[str]:
    """What a neighboring config needs to train the subnet of a folder.

    Returns:
        list[str]: Settings; empty if it trains no subnet.
    """
    # Nothing of it is run here.
    cfg = Config.fromfile(config, import_custom_modules=False)
    found = find_sub_model(cfg.get('model'))
    if found is None:
        return []
    key, part = found
    options = [f'{key}.structure={osp.join(folder, "subnet.yaml")}']
    if has_type(part.get('init_cfg'), 'Pretrained'):
        weights = osp.join(folder, 'subnet.pth')
        options.append(f'{key}.init_cfg.checkpoint={weights}')
    return options


def _neighbor(config: Optional[str], finetune: bool) -> Optional[str]:
    """`net_dms-retrain_….py` beside `net_dms-search_….py`.

    Or `net_dms-finetune_….py`, which a search with a teacher prefers.
    """
    name, found, _ = osp.basename(config or '').partition('_dms-')
    if not found:
        return None
    kinds = (FINETUNE, RETRAIN) if finetune else (RETRAIN, FINETUNE)
    for kind in kinds:
        pattern = osp.join(osp.dirname(config), f'{name}_dms-{kind}*.py')
        configs = sorted(glob(pattern))
        if configs:
            return configs[0] if len(configs) == 1 else None
    return None


def write_retrain_config(runner: Runner, folder: str) -> None:
    """Write the config of a training of the subnet, ``retrain.py``.

    After a search with a teacher the subnet goes on with its weights and
    that teacher; otherwise it begins from scratch.

    Args:
        runner (Runner): Of the search.
        folder (str): Where the subnet is.
    """
    if not has_type(runner.cfg.get('model'), 'DMSAlgorithm'):
        return
    cfg: Config = deepcopy(runner.cfg)
    learns = finetunes(cfg)
    cfg.model = _subnet(cfg, folder)
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
    note = _FINETUNE_NOTE if learns else _NOTE
    write_text(osp.join(folder, CONFIG_FILE), note + cfg.pretty_text)


def _subnet(cfg: Config, folder: str) -> Dict[str, Any]:
    """The model of a training of the subnet, with the search's teacher."""
    model, distill = cfg.model, cfg.model.get('distill')
    subnet = dict(
        type='mmrazor.DMSSubModel',
        architecture=model.architecture,
        structure=osp.abspath(osp.join(folder, 'subnet.yaml')),
    )
    if distill is None:
        # `init_detector` and its like look for one beside `architecture`.
        has_backbone = 'backbone' in model.architecture
        return {**subnet, 'backbone': {}} if has_backbone else subnet
    weights = osp.abspath(osp.join(folder, 'subnet.pth'))
    subnet['init_cfg'] = dict(type='Pretrained', checkpoint=weights)
    distill = dict(distill)
    teacher = distill.pop('teacher', None)
    if teacher is None:
        teacher = deepcopy(model.architecture)
        if cfg.get('load_from'):
            # The weights of the search's start, which it has taught.
            teacher.init_cfg = dict(
                type='Pretrained',
                checkpoint=cfg.load_from,
                prefix='architecture.',
            )
    return dict(
        type='mmrazor.DistilledModel',
        architecture=subnet,
        teacher=teacher,
        distill=distill,
    )
