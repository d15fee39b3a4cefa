"""Misspelled keys of a search's config, found before anything is built."""

import inspect
from typing import Any, Mapping

from mmengine.config import Config
from mmengine.registry import Registry

from dms_mmrazor.errors import DMSError
from dms_mmrazor.registry import (
    HOOKS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    TASK_UTILS,
)
from dms_mmrazor.type_names import type_name

_BUILD_KEYS = {'type', '_scope_', 'priority'}


def check_keywords(cfg: Config) -> None:
    """Raise if a part of ours has a key that its class does not take.

    Args:
        cfg (Config): Config of a search or of anything else.

    Raises:
        DMSError: It names the key and those that are known.
    """
    hooks = cfg.get('custom_hooks') or []
    for hook in hooks:
        _check('custom_hooks', hook, HOOKS, 'ResourceHook')
    _check_structure(cfg.get('optim_wrapper') or {})
    model = cfg.get('model')
    if not _check('model', model, MODELS, 'DMSAlgorithm'):
        return
    mutator = model.get('mutator')
    if _check('model.mutator', mutator, MODELS, 'DMSMutator', ''):
        _check(
            *('model.mutator.parse_cfg', mutator.get('parse_cfg')),
            *(TASK_UTILS, 'DMSChannelAnalyzer', 'ChannelAnalyzer', ''),
        )


def _check(
    key: str, cfg: Any, registry: Registry, name: str, *aliases: str
) -> bool:
    """Whether a config is of that type; its keys are checked then."""
    known_class = registry.module_dict.get(name)
    if not isinstance(cfg, dict) or known_class is None:
        return False
    if type_name(cfg) not in (name, *aliases):
        return False
    known = [*inspect.signature(known_class).parameters]
    unknown = sorted(set(cfg) - set(known) - _BUILD_KEYS)
    if unknown:
        raise DMSError(
            f'`{key}`: {name} has no setting {unknown[0]!r}; it takes '
            f'{", ".join(known)}.'
        )
    return True


def _check_structure(cfg: Mapping[str, Any]) -> None:
    """Let our constructor read its options, which it does at once."""
    name = 'DMSOptimWrapperConstructor'
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.module_dict.get(name)
    if constructor is not None and type_name(cfg, 'constructor') == name:
        constructor(cfg, cfg.get('paramwise_cfg'))
