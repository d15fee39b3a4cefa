"""What a model gives, as named tensors, and whether two give the same.

A model that draws random numbers is compared with the same ones drawn.
"""

import random
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from inspect import isroutine
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.demo import evaluating, forward_tensors
from dms_mmrazor.graph.running import removing

Path = Tuple[str, ...]

_ATOMS = (str, bytes, int, float, complex, type, nn.Module, torch.device)


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


class IncomparableError(DMSError):
    """Two outputs hold nothing that could be compared."""


def named_tensors(outputs: Any) -> Dict[str, Tensor]:
    """All tensors of nested outputs by where they are, in order.

    It looks into mappings, sequences, named tuples, dataclasses, mmengine's
    data elements, transformers' outputs and the attributes of any other
    object: a tensor that is not seen here would not be proven.

    Args:
        outputs (Any): What a forward pass gave.

    Returns:
        dict[str, Tensor]: Such as ``'[0].bboxes'``; arrays as tensors.
    """
    return {''.join(path): tensor for path, tensor in _walk(outputs, (), ())}


def flatten_tensors(outputs: Any) -> List[Tensor]:
    """The tensors of :func:`named_tensors`."""
    return [tensor for _, tensor in _walk(outputs, (), ())]


def _walk(
    value: Any, path: Path, above: Tuple[int, ...]
) -> Iterator[Tuple[Path, Tensor]]:
    """Tensors of a value at a path; ``above``: what it is part of."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, np.ndarray):
        if value.dtype.kind in 'biufc':
            yield path, torch.from_numpy(value)
    elif id(value) not in above:  # an object may refer to its owner
        for name, part in _parts(value):
            yield from _walk(part, (*path, name), (*above, id(value)))


def _parts(value: Any) -> Iterator[Tuple[str, Any]]:
    """Name and value of all that an object consists of."""
    if value is None or isinstance(value, _ATOMS) or isroutine(value):
        return
    if isinstance(value, BaseDataElement):
        for key, part in value.all_items():
            yield f'.{key}', part
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield f'[{key!r}]', part
    elif hasattr(value, '_fields') and isinstance(value, tuple):
        for key in value._fields:
            yield f'.{key}', getattr(value, key)
    elif is_dataclass(value):
        for field in fields(value):
            yield f'.{field.name}', getattr(value, field.name, None)
    elif isinstance(value, Iterable):
        for index, part in enumerate(value):
            yield f'[{index}]', part
    else:
        names = (*_slots(value), *getattr(value, '__dict__', ()))
        for key in dict.fromkeys(names):
            yield f'.{key}', getattr(value, key, None)


def _slots(value: Any) -> List[str]:
    """Attributes of an object whose class has no dictionary of them."""
    slots: List[str] = []
    for kind in type(value).__mro__:
        own = kind.__dict__.get('__slots__', ())
        slots += [own] if isinstance(own, str) else list(own)
    return [name for name in slots if not name.startswith('__')]


def difference(outputs: Any, expected: Any) -> float:
    """Largest difference of two outputs, relative to their scale.

    Args:
        outputs (Any): Of one model.
        expected (Any): Of another one, on the same input.

    Returns:
        float: max |a - b| / max(max |b|, 1e-6) over all tensors; inf if
        shapes differ or one has numbers where the other has none.

    Raises:
        IncomparableError: If one has parts that the other has not, or there
            are no numbers in them: that would prove nothing.
    """
    found, wanted = named_tensors(outputs), named_tensors(expected)
    unlike = [name for name in {**found, **wanted} if name not in found]
    unlike += [name for name in found if name not in wanted]
    if unlike:
        place = unlike[0] or 'the output itself'
        raise IncomparableError(
            f'one output has {len(found)} tensors, the other {len(wanted)}: '
            f'{place} is only in one of them.'
        )
    numbers = [name for name, tensor in wanted.items() if _finite(tensor)]
    if not numbers:
        raise IncomparableError(
            f'outputs of type {type(expected).__name__} hold '
            + ('no finite number.' if wanted else 'no tensor.')
        )
    return max(_difference(found[name], wanted[name]) for name in wanted)


def _finite(tensor: Tensor) -> bool:
    """Whether there is a number in a tensor."""
    return bool(torch.isfinite(_as_numbers(tensor)).any())


def _as_numbers(tensor: Tensor) -> Tensor:
    """Values that can be subtracted."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_floating_point() or tensor.is_complex():
        return tensor
    return tensor.double()


def _difference(a: Tensor, b: Tensor) -> float:
    """Of one tensor; what is no number has to be so in both."""
    if a.shape != b.shape:
        return float('inf')
    a, b = _as_numbers(a), _as_numbers(b)
    numbers = torch.isfinite(b)
    if not torch.equal(torch.isfinite(a), numbers):
        return float('inf')
    a, b = a[numbers], b[numbers]
    if not b.numel():
        return 0.0
    return float((a - b).abs().max()) / max(float(b.abs().max()), 1e-6)


def first_difference(
    a: nn.Module,
    b: nn.Module,
    image: Tensor,
    names: Mapping[nn.Module, str],
) -> str:
    """The first module that gives other numbers in ``b`` than in ``a``.

    Only outputs of the same shape are compared, those of the first call of
    each module.

    Args:
        a (nn.Module): A model in evaluation mode.
        b (nn.Module): One that was cut from it.
        image (Tensor): Input [B, C, H, W].
        names (Mapping): Modules of ``b`` → their names in ``a``, which
            others have where blocks before them were removed.

    Returns:
        str: Full name of the module; '' if there is none.
    """
    # A norm whose affine part its reader has gives other numbers in ``a``.
    own = {
        module: name
        for name, module in a.named_modules()
        if not getattr(module, 'affine_in_reader', False)
    }
    expected = _first_outputs(a, image, own)
    for name, output in _first_outputs(b, image, names).items():
        other = expected.get(name)
        if other is None or other.shape != output.shape:
            continue
        scale = max(float(other.abs().max()), 1e-6)
        if not float((output - other).abs().max()) <= 1e-3 * scale:
            return name
    return ''


def other_values(image: Any) -> Any:
    """An input of the same kind with other values.

    Args:
        image (Tensor | ExampleInputs): Numbers between 0 and 1, or indices.
    """
    if not isinstance(image, Tensor):
        return image.with_tensors(list(map(other_values, image.tensors)))
    if image.is_floating_point():
        return 1 - image
    return image.flip(-1) if image.dim() else image


def _first_outputs(
    model: nn.Module, image: Tensor, names: Mapping[nn.Module, str]
) -> Dict[str, Tensor]:
    """What each module gives when it is first called, in this order."""
    outputs: Dict[str, Tensor] = {}

    def record(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.numel():
            outputs.setdefault(names[module], output.clone())

    own = [m for m in model.modules() if m in names]
    hooks = (m.register_forward_hook(record) for m in own)
    with evaluating(model), removing(hooks):
        forward_tensors(model, image)
    return outputs


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
            # As many numbers as it has elements are drawn: the next ones,
            # of a permutation perhaps, must not depend on that.
            torch.manual_seed(0)
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
