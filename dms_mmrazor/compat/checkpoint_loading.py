"""Let mmengine load its own checkpoints under ``weights_only=True``.

Symptom: ``--resume`` fails with ``Unsupported global: GLOBAL
mmengine.logging.history_buffer.HistoryBuffer``.
Seen with: mmengine 0.10.7, torch >= 2.6 (where ``torch.load`` defaults to
``weights_only=True``).
Drop when: mmengine registers its classes with
``torch.serialization.add_safe_globals`` itself.

Only the exact classes that mmengine's message hub and numpy's scalars need
are allowed; the check itself stays on.
"""

from typing import List

import torch


def _checkpoint_classes() -> List[object]:
    """The classes that a checkpoint of mmengine holds beside tensors."""
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer

    try:
        from numpy._core.multiarray import _reconstruct, scalar
    except ImportError:
        from numpy.core.multiarray import _reconstruct, scalar
    dtypes = [np.float64, np.float32, np.int64, np.int32, np.bool_]
    dtype_classes = {type(np.dtype(dtype)) for dtype in dtypes}
    return [
        HistoryBuffer,
        HistoryBuffer.max,
        HistoryBuffer.mean,
        HistoryBuffer.min,
        HistoryBuffer.current,
        _reconstruct,
        scalar,
        getattr,
        np.ndarray,
        np.dtype,
        *sorted(dtype_classes, key=str),
    ]


def allow_mmengine_checkpoints() -> None:
    """Allow-list mmengine's checkpoint classes where torch checks them."""
    if hasattr(torch.serialization, 'add_safe_globals'):
        torch.serialization.add_safe_globals(_checkpoint_classes())
