"""The resource hook of a config, without a runner."""

from mmengine.config import Config

from dms_mmrazor.engine.hooks.resource_hook import ResourceHook
from dms_mmrazor.errors import DMSError


def find_resource_hook(cfg: Config) -> ResourceHook:
    """The ResourceHook of a search's config.

    Raises:
        DMSError: If the config has none.
    """
    for hook in cfg.get('custom_hooks') or []:
        hook = dict(hook)
        if str(hook.pop('type', '')).rpartition('.')[2] == 'ResourceHook':
            hook.pop('_scope_', None)
            hook.pop('priority', None)
            return ResourceHook(**hook)
    raise DMSError(
        f'{cfg.filename}: `custom_hooks` has no ResourceHook; this is not '
        'the config of a search.'
    )
