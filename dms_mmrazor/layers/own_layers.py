"""Layers of someone's own class that compute what a stock layer computes.

timm has a dozen of them: a convolution that pads by itself, a linear layer
that casts, layer norms by another kernel. There is no end of such classes,
so they are told by what they do, on a layer of a few channels: what their
code makes of a masked weight must be what it makes of the cut layer.
"""

from copy import deepcopy
from typing import Any, ClassVar, Optional, Tuple, Type

import torch
from torch import Tensor, nn

from dms_mmrazor.errors import raise_device_error
from dms_mmrazor.layers.dms_op import DMSOp
from dms_mmrazor.layers.kind import narrow_layer

CODE_ERRORS = (
    AssertionError,
    AttributeError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a class with other arguments, or for other inputs, raises."""

_KEPT_IN, _KEPT_OUT = torch.tensor([0, 1, 3, 5]), torch.tensor([0, 2, 3])


class OwnForward(DMSOp):
    """A layer whose own code reads a weight and bias with masks folded in."""

    carries_depth: ClassVar[bool] = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the plain layer."""
        groups = getattr(self, 'groups', 1)
        weight, bias = self.fold(self.weight, self.bias, groups)
        # An instance's dictionary comes before its parameters.
        self.__dict__.update(weight=weight, bias=bias)
        try:
            return super().forward(*args, **kwargs)
        finally:
            del self.__dict__['weight'], self.__dict__['bias']


def derive_masked(layer_type: type, base: Type[DMSOp]) -> Type[DMSOp]:
    """The class of such layers that takes masks.

    Args:
        layer_type (type): A class that computes like a stock one.
        base (type): What takes the masks of the stock one.
    """
    return type(f'DMS{layer_type.__name__}', (base, layer_type), {})


def made(kind: type, *args: int, **kwargs: str) -> Optional[nn.Module]:
    """A small layer of a class; ``None`` if it takes other arguments."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return kind(*args, **kwargs)
    except CODE_ERRORS as error:
        raise_device_error(error)
        return None


def numbers(shape: Tuple[int, ...]) -> Tensor:
    """The same random numbers for each trial."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator)


@torch.no_grad()
def normalizes(kind: type, shape: Tuple[int, ...]) -> bool:
    """Whether a class does what the norm of torch that it extends does.

    Args:
        kind (type): A layer norm, or a group norm of one group, whose
            constructor takes the number of channels.
        shape (tuple): Of an input of 6 channels.
    """
    layer, x = made(kind, 6), numbers(shape)
    if layer is None or issubclass(kind, DMSOp):
        return False
    stock = nn.LayerNorm if issubclass(kind, nn.LayerNorm) else nn.GroupNorm
    if stock is nn.GroupNorm and layer.num_groups != 1:
        return False
    for parameter in layer.parameters():
        parameter.copy_(numbers(tuple(parameter.shape)))
    return same(layer, x, stock.forward(layer, x))


@torch.no_grad()
def folds(
    kind: type, args: Tuple[int, ...], shape: Tuple[int, ...], dim: int
) -> bool:
    """Whether masks of a layer's weight do what cutting the layer does.

    Not where the code takes statistics of the weight, for instance.

    Args:
        kind (type): Class of a conv or linear layer.
        args (tuple): Of its constructor: 6 channels to 4.
        shape (tuple): Of an input.
        dim (int): Its channels.
    """
    layer = made(kind, *args)
    if layer is None or issubclass(kind, DMSOp):
        return False
    x = numbers(shape)
    masked, cut = deepcopy(layer), deepcopy(layer)
    rows, columns = torch.zeros(4), torch.zeros(6)
    rows[_KEPT_OUT], columns[_KEPT_IN] = 1.0, 1.0
    kernel = [1] * (masked.weight.dim() - 2)
    masked.weight.mul_(columns.view(1, -1, *kernel))
    masked.weight.mul_(rows.view(-1, 1, *kernel))
    if masked.bias is not None:
        masked.bias.mul_(rows)
    narrow_layer(cut, _KEPT_OUT, _KEPT_IN)
    try:
        expected = masked(x).index_select(dim, _KEPT_OUT)
    except CODE_ERRORS as error:
        raise_device_error(error)
        return False
    return same(cut, x.index_select(dim, _KEPT_IN), expected)


def same(layer: nn.Module, x: Tensor, expected: Tensor) -> bool:
    """Whether a layer gives what is expected of it."""
    try:
        given = layer(x)
    except CODE_ERRORS as error:
        raise_device_error(error)
        return False
    return (
        isinstance(given, Tensor)
        and given.shape == expected.shape
        and torch.allclose(given, expected, atol=1e-5)
    )
