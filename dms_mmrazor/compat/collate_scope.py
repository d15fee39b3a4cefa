"""Let configs inherit a ``collate_fn`` from another package.

Symptom: a config with ``_base_ = 'mmyolo::…'`` fails at its first batch:
``TypeError: yolov5_collate() got an unexpected keyword argument '_scope_'``.
Seen with: mmengine 0.10.7. It notes the package in every dict with a ``type``
that is inherited, and passes the note on to the function.
Drop when: ``Runner.build_dataloader`` takes ``_scope_`` out.
"""

import functools
from typing import Any

from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner
from torch.utils.data import DataLoader


def allow_inherited_collate() -> None:
    """Take the note out before the data loader is built."""
    original = Runner.build_dataloader
    if hasattr(original, 'without_scope'):
        return

    @functools.wraps(original)
    def build_dataloader(
        dataloader: Any, *args: Any, **kwargs: Any
    ) -> DataLoader:
        return original(_without_scope(dataloader), *args, **kwargs)

    build_dataloader.without_scope = True
    Runner.build_dataloader = staticmethod(build_dataloader)


def _without_scope(dataloader: Any) -> Any:
    """A config whose collate function is found in the noted package."""
    collate = isinstance(dataloader, dict) and dataloader.get('collate_fn')
    if not isinstance(collate, dict) or '_scope_' not in collate:
        return dataloader
    collate = dict(collate)
    scope = collate.pop('_scope_')
    with FUNCTIONS.switch_scope_and_registry(scope) as registry:
        collate['type'] = _find(registry, collate['type'])
    return {**dataloader, 'collate_fn': collate}


def _find(registry: Any, kind: Any) -> Any:
    found = registry.get(kind) if isinstance(kind, str) else None
    return kind if found is None else found
