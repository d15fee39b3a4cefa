"""Read a checkpoint without running code from it, on any torch.

Symptom: ``torch.load(…, weights_only=True)`` refuses every checkpoint of a
training: torch 1.13's reader does not know Python's floats, and none before
2.6 has an allow-list for exact names.
Seen with: torch 1.13 to 2.5.
Drop when: torch < 2.6 is no longer supported.

The check stays on there too, with this module in the place of torch's own
reader: Python's unpickler that, like the reader of later versions, finds
nothing but names on a list. (torch 1.13 ignores ``pickle_module`` and would
use ``pickle`` itself.)
"""

import collections
import pickle
import sys
from typing import Any, Dict

import torch

from dms_mmrazor.compat.checkpoint_loading import (
    TORCH_CHECKS,
    mmengine_globals,
)

_REBUILD = ('_rebuild_tensor', '_rebuild_tensor_v2', '_rebuild_parameter')


def _allowed() -> Dict[str, Any]:
    """Everything that a checkpoint may name."""
    found = {f'torch._utils.{n}': getattr(torch._utils, n) for n in _REBUILD}
    found.update(
        {
            '_codecs.encode': _encode,
            'collections.OrderedDict': collections.OrderedDict,
            'torch.Size': torch.Size,
        }
    )
    for name, value in vars(torch).items():
        if isinstance(value, torch.dtype):
            found[f'torch.{name}'] = value
    return {**found, **mmengine_globals()}


def _encode(text: str, encoding: str) -> bytes:
    """How numpy's bytes are written: by latin-1 only."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'it asks for encoding {encoding!r}')
    return str(text).encode('latin-1')


class Unpickler(pickle.Unpickler):
    """Python's unpickler, for names on the list only."""

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up on the list.

        Raises:
            pickle.UnpicklingError: If it is not on the list.
        """
        module = 'builtins' if module == '__builtin__' else module
        allowed = _allowed()
        if f'{module}.{name}' not in allowed:
            raise pickle.UnpicklingError(f'it contains {module}.{name}')
        return allowed[f'{module}.{name}']


def load(file: Any, **kwargs: Any) -> Any:
    """As ``pickle.load``; torch's older file format calls it."""
    return Unpickler(file, **kwargs).load()


def load_safely(path: str) -> Any:
    """Load a checkpoint to the CPU; nothing in it is run.

    Raises:
        pickle.UnpicklingError: If it contains something else than data.
    """
    if TORCH_CHECKS:
        return torch.load(path, map_location='cpu', weights_only=True)
    # A name that an unknown torch lacks raises here, before anything is read.
    own = torch.serialization._weights_only_unpickler
    torch.serialization._weights_only_unpickler = sys.modules[__name__]
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    finally:
        torch.serialization._weights_only_unpickler = own
