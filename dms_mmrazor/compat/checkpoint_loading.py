"""Let mmengine load its own checkpoints under ``weights_only=True``.

Symptom: ``--resume`` and ``load_from`` fail with ``Unsupported global: GLOBAL
mmengine.logging.history_buffer.HistoryBuffer`` (and then numpy's, and then
``getattr``).
Seen with: mmengine 0.10.7, torch >= 2.6 (where ``torch.load`` defaults to
``weights_only=True``).
Drop when: mmengine registers its classes with
``torch.serialization.add_safe_globals`` itself.

The check stays on. Allowed are the class of mmengine's logged values and
what numpy needs for its arrays and scalars of plain numbers. The pickled
class also asks for ``getattr``, through which a file could reach anything;
it gets a stand-in that knows four methods of that one class.
"""

import pickle
from typing import Any, Callable, Dict

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.utils import digit_version

TORCH_CHECKS = digit_version(torch.__version__) >= digit_version('2.6.0')
"""Whether ``weights_only=True`` knows an allow-list of exact names."""

_STATISTICS = ('min', 'max', 'mean', 'current')
_DTYPES = ('float64', 'float32', 'int64', 'int32', 'uint8', 'bool')


def history_statistic(owner: Any, name: Any) -> Callable[..., Any]:
    """What ``getattr`` may do in a checkpoint.

    A pickled ``HistoryBuffer`` carries its methods min, max, mean and
    current, as ``getattr(HistoryBuffer, 'min')`` and so on.

    Args:
        owner (Any): Must be ``HistoryBuffer`` itself.
        name (Any): Must be one of its four methods.

    Raises:
        pickle.UnpicklingError: If a file asks for anything else.
    """
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(
            f'it asks for attribute {name!r} of {owner!r}, which no '
            'checkpoint of mmengine contains'
        )
    return vars(HistoryBuffer)[name]


def mmengine_globals() -> Dict[str, Any]:
    """What checkpoints of mmengine hold beside torch's own types.

    Returns:
        dict[str, Any]: Name in the file → what it stands for.
    """
    try:
        from numpy._core.multiarray import _reconstruct, scalar
    except ImportError:
        from numpy.core.multiarray import _reconstruct, scalar
    found = {
        f'{HistoryBuffer.__module__}.HistoryBuffer': HistoryBuffer,
        'builtins.getattr': history_statistic,
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
    }
    # Files of numpy 1 and 2 differ in the name of the module.
    for module in ('numpy._core.multiarray', 'numpy.core.multiarray'):
        found[f'{module}._reconstruct'] = _reconstruct
        found[f'{module}.scalar'] = scalar
    for dtype in _DTYPES:
        kind = type(np.dtype(dtype))
        found[f'{kind.__module__}.{kind.__name__}'] = kind
    return found


def allow_mmengine_checkpoints() -> None:
    """Allow-list mmengine's checkpoint classes where torch checks them."""
    if TORCH_CHECKS:
        allowed = [(value, name) for name, value in mmengine_globals().items()]
        torch.serialization.add_safe_globals(allowed)
