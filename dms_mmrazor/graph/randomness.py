"""Let a model that draws random numbers compute the same twice."""

import random
from contextlib import contextmanager
from typing import Any, Iterator

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.demo import evaluating, forward_tensors
from dms_mmrazor.graph.outputs import difference

SAME = 1e-5
"""Difference of two runs that the order of sums on a GPU explains."""

_RANDOM = (
    'bernoulli',
    'bernoulli_',
    'exponential_',
    'normal',
    'normal_',
    'rand',
    'rand_like',
    'randn',
    'randn_like',
    'uniform',
    'uniform_',
)
"""Operators that fill a tensor, whatever its shape."""


class _SameNumbers(TorchDispatchMode):
    """Random tensors get the same number everywhere.

    The same seed is not enough: where channels are removed, the remaining
    ones would get other random numbers than they had.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.__name__.partition('.')[0]
        if name in _RANDOM:
            # 0.5 may lie outside of a uniform's bounds.
            bounded = name.startswith('uniform') and len(args) > 2
            result.fill_(sum(args[1:3]) / 2 if bounded else 0.5)
        return result


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Random numbers that depend on neither the past nor the shapes.

    All generators are as before afterwards.
    """
    python, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            random.seed(0)
            np.random.seed(0)
            torch.manual_seed(0)
            with _SameNumbers():
                yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)


def is_random(model: nn.Module, image: torch.Tensor) -> bool:
    """Whether a model computes something else each time.

    Args:
        model (nn.Module): A plain model.
        image (Tensor): Input [B, C, H, W].

    Raises:
        DMSError: If it does so even where all random numbers are the same.
    """
    with evaluating(model):
        outputs = [forward_tensors(model, image) for _ in range(2)]
        # Most models end here, two passes earlier.
        if difference(*outputs) <= SAME:
            return False
        outputs = []
        for _ in range(2):
            with same_random_numbers():
                outputs.append(forward_tensors(model, image))
    found = difference(*outputs)
    if found <= SAME:
        return True
    raise DMSError(
        f'{type(model).__name__} is not deterministic: on the same input in '
        f'evaluation mode its outputs differ by {found:.1e} (relative), with '
        'all random generators seeded, too. What it computes must not depend '
        'on what it did before; `mutator.verify=False` searches it unproven.'
    )
