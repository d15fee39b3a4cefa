"""Build what a search config describes, without data and training."""

from typing import Any, Dict, Optional, Union

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.registry import HOOKS


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
    algorithm = MODELS.build(model_cfg)
    if not isinstance(algorithm, DMSAlgorithm):
        raise DMSError(
            f'{cfg.filename} is not the config of a search: its model is a '
            f'{type(algorithm).__name__}, not a DMSAlgorithm.'
        )
    return algorithm


def parse_target_text(text: str) -> Union[str, Dict[str, str]]:
    """A target of the command line: '0.5', '1G' or 'macs=1G,params=0.5'."""
    if '=' not in text:
        return text
    pairs = (part.partition('=') for part in text.split(','))
    return {kind.strip(): value.strip() for kind, _, value in pairs}


def build_resource_hook(
    cfg: Config, target: Optional[str] = None, divisor: Optional[int] = None
) -> Any:
    """Build the ``ResourceHook`` of a search config.

    Args:
        cfg (Config): Config of a search.
        target (str, optional): Another target, see
            :func:`parse_target_text`. Defaults to None.
        divisor (int, optional): Another divisor. Defaults to None.

    Returns:
        ResourceHook | None: None if the config has none and no target is
        given either.
    """
    hook_cfg = _find_hook(cfg)
    if hook_cfg is None and target is None:
        return None
    hook_cfg = dict(hook_cfg or {'type': 'mmrazor.ResourceHook'})
    if target is not None:
        hook_cfg['target'] = parse_target_text(target)
        # A weight of each kind of the config's targets may not fit these.
        hook_cfg.pop('loss_weight', None)
    if divisor is not None:
        hook_cfg['divisor'] = divisor
    return HOOKS.build(hook_cfg)


def _find_hook(cfg: Config) -> Optional[Dict[str, Any]]:
    """The entry of ``custom_hooks`` that sets the target."""
    for hook_cfg in cfg.get('custom_hooks') or []:
        if isinstance(hook_cfg, dict):
            name = str(hook_cfg.get('type')).rpartition('.')[2]
            if name == 'ResourceHook':
                return hook_cfg
    return None
