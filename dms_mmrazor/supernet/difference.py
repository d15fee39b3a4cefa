"""How far the outputs of a masked supernet and of its subnet are apart."""

from contextlib import contextmanager, nullcontext
from typing import Any, Iterator, Optional

from torch import Tensor, nn

from dms_mmrazor.graph.demo import evaluating, forward_tensors
from dms_mmrazor.graph.outputs import (
    difference,
    is_random,
    same_random_numbers,
)
from dms_mmrazor.graph.running import (
    ForwardError,
    in_double,
    naming_modules,
)

__all__ = ['TOLERANCE', 'as_double', 'compare', 'max_difference']

TOLERANCE = 1e-4
"""Relative difference that rounding may explain."""


def max_difference(
    masked: nn.Module, plain: nn.Module, image: Tensor, drawing: bool = False
) -> float:
    """Largest difference of two models' outputs, relative to their scale.

    Args:
        masked (nn.Module): A supernet with hard masks.
        plain (nn.Module): Its exported subnet.
        image (Tensor): Input [B, C, H, W].
        drawing (bool): Whether the models draw random numbers: both get the
            same ones. Defaults to False.

    Returns:
        float: max |a - b| / max(max |b|, 1e-6) over all outputs; inf if
        their shapes differ. Of models in half precision, whose rounding
        would hide differences, in single precision.

    Raises:
        ForwardError: If one does not run.
        IncomparableError: If their outputs have different parts, or none.
    """
    outputs = []
    if image.element_size() < 4:
        image = image.float()
    for model in (masked, plain):
        drawn = same_random_numbers() if drawing else nullcontext()
        with _single(model), drawn, evaluating(model), naming_modules(model):
            outputs.append(forward_tensors(model, image))
    return difference(*outputs)


def compare(
    masked: nn.Module,
    plain: nn.Module,
    image: Tensor,
    drawing: Optional[bool] = None,
    sure: float = float('inf'),
) -> float:
    """As :func:`max_difference`, but a difference is looked at again.

    What differs more than rounding explains in single precision is computed
    again in double precision: deep networks with statistics of other widths
    magnify rounding, and GPUs may round to ten bits.

    Args:
        masked (nn.Module): A supernet with hard masks.
        plain (nn.Module): Its exported subnet.
        image (Tensor): Input [B, C, H, W].
        drawing (bool, optional): Whether the models draw random numbers.
            Defaults to None: found out where they differ.
        sure (float): A larger difference is taken as it is. Defaults to
            inf, none is.

    Raises:
        ForwardError: If one does not run.
        IncomparableError: If their outputs have different parts, or none.
        DMSError: If two runs of the subnet differ.
    """
    found = max_difference(masked, plain, image, bool(drawing))
    if found <= TOLERANCE or found > sure:
        return found
    if drawing is None and is_random(plain, image):
        return compare(masked, plain, image, True, sure)
    for at_once in (False, True):
        try:
            with in_double(masked, at_once), in_double(plain, at_once):
                image = as_double(image)
                return max_difference(masked, plain, image, bool(drawing))
        except ForwardError:  # a model may insist on single precision
            continue
    return found


def as_double(image: Any) -> Any:
    """An input in double precision; tokens stay what they are."""
    if isinstance(image, Tensor) and not image.is_floating_point():
        return image
    return image.double()


@contextmanager
def _single(*models: nn.Module) -> Iterator[None]:
    """Values in half precision become single ones; they come back."""
    halves = {
        tensor: tensor.data
        for model in models
        for tensor in [*model.parameters(), *model.buffers()]
        if tensor.is_floating_point() and tensor.element_size() < 4
    }
    for tensor, values in halves.items():
        tensor.data = values.float()
    try:
        yield
    finally:
        for tensor, values in halves.items():
            tensor.data = values
