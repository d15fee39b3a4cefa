"""Build what a search config describes, without data and training."""

from typing import Dict, Optional, Union

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from dms_mmrazor.engine.hooks.resource_hook import ResourceHook
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.registry import MODELS as RAZOR_MODELS
from dms_mmrazor.type_names import has_type, type_name


def build_algorithm(cfg: Config) -> DMSAlgorithm:
    """Build the model of a search config as a runner would.

    Args:
        cfg (Config): Config of a search.

    Raises:
        DMSError: If its model is something else.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    if not cfg.get('model'):
        raise DMSError(f'{cfg.filename} has no `model`: it is no search.')
    model_cfg = dict(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    # Another algorithm of mmrazor's would not know some settings.
    known = RAZOR_MODELS.module_dict.get(type_name(model_cfg))
    if isinstance(known, type) and not issubclass(known, DMSAlgorithm):
        raise _no_search(cfg, known)
    algorithm = MODELS.build(model_cfg)
    if not isinstance(algorithm, DMSAlgorithm):
        raise _no_search(cfg, type(algorithm))
    return algorithm


def _no_search(cfg: Config, kind: type) -> DMSError:
    """What to say of a config whose model is no search."""
    return DMSError(
        f'{cfg.filename} is not the config of a search: its model is a '
        f'{kind.__name__}, not a DMSAlgorithm.'
    )


def find_resource_hook(cfg: Config) -> ResourceHook:
    """The ResourceHook of a search's config.

    Raises:
        DMSError: If the config has none.
    """
    for hook in cfg.get('custom_hooks') or []:
        if has_type(hook, 'ResourceHook'):
            keys = set(hook) - {'type', '_scope_', 'priority'}
            return ResourceHook(**{key: hook[key] for key in keys})
    raise DMSError(
        f'{cfg.filename}: `custom_hooks` has no ResourceHook, which leads a '
        f'search and exports what it found{_misplaced(cfg)}: write '
        "`custom_hooks = [dict(type='mmrazor.ResourceHook', target=0.5)]`."
    )


def _misplaced(cfg: Config) -> str:
    """Where else such a hook is, perhaps by a misspelled key."""
    for key, value in cfg.items():
        hooks = value if isinstance(value, (list, tuple)) else ()
        if any(has_type(hook, 'ResourceHook') for hook in hooks):
            return f' (`{key}` has one, but nothing reads `{key}`)'
    return ''


def parse_target_text(text: str) -> Union[str, Dict[str, str]]:
    """A target of the command line: '0.5', '1G' or 'macs=1G,params=0.5'."""
    if '=' not in text:
        return text
    pairs = (part.partition('=') for part in text.split(','))
    return {kind.strip(): value.strip() for kind, _, value in pairs}


def override_target(
    cfg: Config, target: Optional[str] = None, divisor: Optional[int] = None
) -> None:
    """Set another target or divisor in the ``ResourceHook`` of a config.

    Args:
        cfg (Config): Config of a search; it is changed in place. Without
            a ResourceHook it gets one, if there is a target.
        target (str, optional): See :func:`parse_target_text`. Defaults to
            None, the config's.
        divisor (int, optional): Defaults to None, the config's.
    """
    hooks = list(cfg.get('custom_hooks') or [])
    found = [hook for hook in hooks if has_type(hook, 'ResourceHook')]
    if not found and target is not None:
        found = [{'type': 'mmrazor.ResourceHook'}]
        hooks += found
    for hook in found:
        if target is not None:
            hook['target'] = parse_target_text(target)
        if divisor is not None:
            hook['divisor'] = divisor
    cfg.custom_hooks = hooks
