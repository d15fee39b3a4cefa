"""The resource hook of a config, without a runner."""

from mmengine.config import Config

from dms_mmrazor.engine.hooks.resource_hook import ResourceHook
from dms_mmrazor.errors import DMSError
from dms_mmrazor.type_names import has_type


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
