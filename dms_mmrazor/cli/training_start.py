"""What a training starts from: where a killed one stopped, or weights."""

import os
import os.path as osp
import re
from typing import Any, Iterator, List, Optional, Tuple

from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from dms_mmrazor.engine.checkpoint_files import read_checkpoint, state_dict_of
from dms_mmrazor.errors import DMSError
from dms_mmrazor.subnet.foreign_weights import (
    check_search_weights,
    check_subnet_weights,
)
from dms_mmrazor.type_names import has_type, type_name

_CHECKPOINT = re.compile(r'(epoch|iter)_\d+\.pth')


def choose_resume(cfg: Config, resume: Optional[str]) -> None:
    """Set what a training resumes from.

    With 'auto' and nothing to resume from, the training starts at its
    beginning, from the config's own ``load_from``: a job that is queued
    again and again can always say ``--resume``.

    Args:
        cfg (Config): ``work_dir`` is set; it is changed in place.
        resume (str, optional): A checkpoint, or 'auto' for the newest one
            in the work dir. None means what the config says.
    """
    if resume is None:
        if not cfg.get('resume') or cfg.get('load_from'):
            return
        resume = 'auto'
    found = newest_checkpoint(cfg.work_dir) if resume == 'auto' else resume
    cfg.resume = found is not None
    if found is not None:
        cfg.load_from = found


def newest_checkpoint(folder: str) -> Optional[str]:
    """The last checkpoint of a training that can be read, if any.

    Usually the one that ``last_checkpoint`` names. A kill can leave that
    file empty, or naming what was not written any more or is removed; then
    the newest readable checkpoint is taken.

    Args:
        folder (str): The work dir.
    """
    for path in _candidates(folder):
        try:
            read_checkpoint(path)
            return path
        except DMSError as error:
            print_log(f'not resumed from: {error}', 'current', level=30)
    return None


def _candidates(folder: str) -> Iterator[str]:
    """The named checkpoint, then those beside it, the newest first."""
    named = _named_checkpoint(folder)
    if named:
        yield named
    beside = osp.dirname(named) if named else folder
    found: List[str] = []
    for place in dict.fromkeys([osp.abspath(beside), osp.abspath(folder)]):
        if osp.isdir(place):
            names = filter(_CHECKPOINT.fullmatch, os.listdir(place))
            found += [osp.join(place, name) for name in names]
    named = named and osp.abspath(named)
    yield from sorted(
        (path for path in found if path != named),
        key=osp.getmtime,
        reverse=True,
    )


def _named_checkpoint(folder: str) -> str:
    """What ``last_checkpoint`` says; '' if nothing."""
    path = osp.join(folder, 'last_checkpoint')
    if not osp.isfile(path):
        return ''
    with open(path, encoding='utf-8', errors='replace') as file:
        return file.read().strip()


def make_repeatable(cfg: Config) -> None:
    """Let a seeded training continue bit for bit after a resume.

    Args:
        cfg (Config): Config of a training. Without ``randomness.seed``
            nothing changes. Calling it twice is calling it once: mmengine
            writes the config with the hook to the work dir.
    """
    if (cfg.get('randomness') or {}).get('seed') is None:
        return
    hooks = [*(cfg.get('custom_hooks') or [])]
    if not any(has_type(hook, 'RandomStreamHook') for hook in hooks):
        hooks.append(dict(type='mmrazor.RandomStreamHook'))
    cfg.custom_hooks = hooks
    train_cfg, loader = cfg.get('train_cfg'), cfg.get('train_dataloader')
    if not train_cfg or not loader or not _by_epoch(train_cfg):
        return
    if loader.get('num_workers') and 'worker_init_fn' not in loader:
        loader.persistent_workers = False
        loader.worker_init_fn = dict(type='keep_worker_seed')


def _by_epoch(train_cfg: Config) -> bool:
    kind = type_name(train_cfg)
    return train_cfg.get('by_epoch', kind in ('', 'EpochBasedTrainLoop'))


def check_start_weights(model: nn.Module, cfg: Config) -> None:
    """Raise if a search or a retraining would start from foreign weights.

    Before anything is built or loaded; a runner without this finds it when
    it loads them.

    Args:
        model (nn.Module): What is trained, without wrappers.
        cfg (Config): Its config. What it resumes from is not looked at.

    Raises:
        DMSError: It names the key, the file and what to load instead.
    """
    for key, path in _named(cfg):
        if not path or '://' in path:
            continue
        state = state_dict_of(read_checkpoint(path), path)
        if has_type(cfg.model, 'DMSAlgorithm'):
            check_search_weights(model, state, key, path)
        else:
            source = f'`{key}`: {path}'
            check_subnet_weights(model, state, source, f'`{key}`')


def _named(cfg: Config) -> Iterator[Tuple[str, Any]]:
    """Keys of checkpoints that have to fit what is trained."""
    model = cfg.get('model')
    retraining = has_type(model, 'DMSSubModel')
    if not retraining and not has_type(model, 'DMSAlgorithm'):
        return
    if not cfg.get('resume'):
        yield 'load_from', cfg.get('load_from')
    init_cfg = model.get('init_cfg')
    if retraining and has_type(init_cfg, 'Pretrained'):
        # With a prefix it is a part of another model.
        if not init_cfg.get('prefix'):
            yield 'model.init_cfg.checkpoint', init_cfg.get('checkpoint')
