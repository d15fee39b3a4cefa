"""Where this package registers: mmrazor's own registries.

Nothing new has to be learned by a config: with
``custom_imports = dict(imports=['dms_mmrazor.plugin'])`` the names of this
package stand beside mmrazor's (``ChannelMutator`` looks its units up in
mmrazor's ``MODELS`` without a scope).
"""

from typing import Any

from torch import nn

from dms_mmrazor import compat
from dms_mmrazor.errors import DMSError

compat.apply()

from mmrazor.registry import (  # noqa: E402
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    TASK_UTILS,
)

__all__ = [
    'DATASETS',
    'HOOKS',
    'LOOPS',
    'METRICS',
    'MODELS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'TASK_UTILS',
    'check_architecture',
]


def check_architecture(cfg: Any) -> None:
    """Raise DMSError for no model, or one that no registry in sight knows.

    mmengine says the name of the scope alone, and it is mmrazor's where a
    config sets ``_scope_='mmrazor'`` for the model around it.

    Args:
        cfg (Any): ``model.architecture``; what is built already passes.
    """
    if isinstance(cfg, nn.Module):
        return
    if not isinstance(cfg, dict):
        raise DMSError(
            '`model.architecture` must be the config of a plain model, as in '
            f'`architecture=_base_.model`; got {cfg!r}.'
        )
    if '_scope_' in cfg:
        return
    kind = cfg.get('type')
    if kind is None:
        raise DMSError(
            '`model.architecture` has no `type`: it is the config of a plain '
            'model, as in `architecture=_base_.model`.'
        )
    with MODELS.switch_scope_and_registry(None) as registry:
        if not isinstance(kind, str) or registry.get(kind) is not None:
            return
    children = MODELS.root.children.items()
    homes = [name for name, child in children if kind in child.module_dict]
    advice = (
        f"write `_scope_='{homes[0]}'` in it, or `default_scope='{homes[0]}'` "
        'and no `_scope_` in `model`'
        if homes
        else 'correct it, or import its module by `custom_imports`'
    )
    raise DMSError(
        f'`model.architecture.type={kind!r}` is not registered in scope '
        f'{registry.scope!r}: {advice}.'
    )
