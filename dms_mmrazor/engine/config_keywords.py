"""What a search's config misspells or a search does not work with."""

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
from dms_mmrazor.type_names import settings_of, type_name

# Settings that there were once, and what does their work now.
_FORMER = {
    ('ResourceHook', 'soft_landing'): (
        'remove it, a step never falls far below its target with the default '
        "`model.structure_step=dict(rule='price')`"
    ),
}

_BUILD_KEYS = {'type', '_scope_', 'priority'}


def check_keywords(cfg: Config) -> None:
    """Raise if a part of ours has a key that its class does not take.

    Args:
        cfg (Config): Config of a search or of anything else.

    Raises:
        DMSError: It names the key and those that are known, or what has
            another form.
    """
    hooks = cfg.get('custom_hooks') or []
    if not isinstance(hooks, (list, tuple)):
        raise DMSError(
            '`custom_hooks` must be a list, as in `custom_hooks = '
            "[dict(type='mmrazor.ResourceHook', target=0.5)]`; got "
            f'{type(hooks).__name__}.'
        )
    found = [_check('custom_hooks', h, HOOKS, 'ResourceHook') for h in hooks]
    if sum(found) > 1:
        raise DMSError(
            f'`custom_hooks` has {sum(found)} of ResourceHook, and one would '
            'overrule the others: keep one. Several targets are one dict, '
            "`target=dict(macs=0.5, params='10M')`."
        )
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
    unknown = sorted(set(cfg) - set(settings_of(known_class)) - _BUILD_KEYS)
    if unknown:
        raise unknown_key(key, name, unknown[0])
    return True


def unknown_key(key: str, name: str, unknown: str) -> DMSError:
    """What to say of a setting that a part of ours does not have.

    Args:
        key (str): Where the part is in a config.
        name (str): Class of the part.
        unknown (str): The setting.
    """
    former = _FORMER.get((name, unknown))
    if former is not None:
        return DMSError(f'`{key}`: {name}.{unknown} is gone: {former}.')
    registries = (HOOKS, MODELS, TASK_UTILS)
    found = [r.module_dict[name] for r in registries if name in r.module_dict]
    return DMSError(
        f'`{key}`: {name} has no setting {unknown!r}; it takes '
        f'{", ".join(settings_of(found[0]))}.'
    )


def _check_structure(cfg: Mapping[str, Any]) -> None:
    """Let our constructor read its options, which it does at once.

    mmengine's own, and most others, would not say a word of `structure`.
    """
    name = 'DMSOptimWrapperConstructor'
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.module_dict.get(name)
    if constructor is None:
        return
    options = cfg.get('paramwise_cfg')
    named = type_name(cfg, 'constructor') == name
    if named or 'structure' in (options or {}):
        constructor(cfg, options)


def refuse_unsupported(runner: Any) -> None:
    """Raise for runners and options that a search does not work with.

    Raises:
        DMSError: It names the config key.
    """
    check_keywords(runner.cfg)
    if hasattr(runner, 'strategy'):
        raise DMSError(
            '`runner_type=FlexibleRunner` is not supported in a search: its '
            'strategies split or rewrite the weights that masks multiply. '
            'Remove `runner_type` and `strategy`.'
        )
    if runner.cfg.get('compile') and runner.distributed:
        raise DMSError(
            '`compile` is not supported in a search by several processes: '
            'nobody has tested it. Remove it, or search with one process.'
        )
