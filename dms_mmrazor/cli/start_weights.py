"""Weights that a training starts from, compared with what it trains."""

from typing import Any, Iterator, Tuple

from mmengine.config import Config
from torch import nn

from dms_mmrazor.engine.checkpoint_files import read_checkpoint, state_dict_of
from dms_mmrazor.subnet.foreign_weights import (
    check_search_weights,
    check_subnet_weights,
)
from dms_mmrazor.type_names import has_type


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
