"""What a model gives, as named tensors, and how far two outputs differ."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from inspect import isroutine
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError

Path = Tuple[str, ...]

_ATOMS = (str, bytes, int, float, complex, type, nn.Module, torch.device)


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
