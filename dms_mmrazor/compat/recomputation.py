"""Let blocks that are computed again in the backward pass have masks.

Symptom: a search of a model with ``with_cp=True``, or with mmengine's
``activation_checkpointing``, fails in its first step with 'Trying to backward
through the graph a second time'. Reentrant checkpoints run a backward pass of
their own for each block, and all blocks share the graph of the masks.
Seen with: torch 1.13 and 2.11 (reentrant is their default); mmengine 0.10.7,
mmpretrain 1.2.0 and mmdet 3.3.0 do not choose.
Drop when: they choose ``use_reentrant=False``, or torch does by default.
"""

import sys
from contextlib import contextmanager
from functools import wraps
from typing import Any, Callable, Iterator, List, Tuple

from torch import nn

# Where checkpoints are called from, by a global name.
_MODULES = (
    'torch.utils.checkpoint',
    'mmengine.runner.activation_checkpointing',
)


def recomputes(model: nn.Module) -> bool:
    """Whether any block of a model may be computed again."""
    return any(
        getattr(module, 'with_cp', False) or 'forward' in vars(module)
        for module in model.modules()
    )


@contextmanager
def without_reentrance() -> Iterator[None]:
    """Checkpoints made inside share the backward pass of the whole model.

    Those that ask for something else get what they ask for.
    """
    before: List[Tuple[Any, Callable[..., Any]]] = []
    for name in _MODULES:
        module = sys.modules.get(name)
        if module is not None:
            before.append((module, module.checkpoint))
            module.checkpoint = _not_reentrant(module.checkpoint)
    try:
        yield
    finally:
        for module, checkpoint in before:
            module.checkpoint = checkpoint


def _not_reentrant(checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    """torch's function with another default."""

    @wraps(checkpoint)
    def call(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(*args, **{'use_reentrant': False, **kwargs})

    return call
