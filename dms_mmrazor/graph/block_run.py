"""A block with what it was once called with, run again in other ways.

What a block does is not read off its code, it is tried: with outputs of its
modules scaled or left out, or without what its layers compute.
"""

from collections.abc import Iterator as IteratorType
from contextlib import contextmanager
from types import MappingProxyType
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterator,
    Mapping,
    NamedTuple,
    Sequence,
    Tuple,
)

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_map

from dms_mmrazor.graph.outputs import flatten_tensors
from dms_mmrazor.graph.running import intercepting, removing

_TOLERANCE = 1e-6
"""Relative difference of tensors that a rounding explains."""


class BlockRun(NamedTuple):
    """A block with the arguments it once was called with.

    Attributes:
        block (nn.Module): The block.
        x (Tensor): Its input, the first argument.
        y (Tensor): Its output, of the same shape; the first tensor of it
            if there are more.
        rest (tuple): Further arguments.
        named (Mapping[str, Any]): Keyword arguments. Defaults to {}.
        key (str): Keyword of the input; '' if it has none. Defaults to ''.
        apart (frozenset[nn.Module]): Modules that end no branch of the
            block, so that none is silenced alone. Defaults to none.
    """

    block: nn.Module
    x: Tensor
    y: Tensor
    rest: Tuple[Any, ...] = ()
    named: Mapping[str, Any] = MappingProxyType({})
    key: str = ''
    apart: FrozenSet[nn.Module] = frozenset()

    @property
    def does_nothing(self) -> bool:
        """Whether the block gives back its input as it is."""
        return close(self.y, self.x)

    def output(
        self,
        factors: Dict[nn.Module, float],
        bypassed: Sequence[nn.Module] = (),
    ) -> Tensor:
        """Output of the block with outputs of some modules scaled.

        Args:
            factors (dict[nn.Module, float]): What to scale.
            bypassed (Sequence[nn.Module]): Modules that give their inputs.
                Defaults to ().
        """
        hooks = [
            module.register_forward_hook(Scale(factor))
            for module, factor in factors.items()
        ]
        hooks += [m.register_forward_hook(bypass) for m in bypassed]
        with removing(hooks):
            return self._call(self.x)

    def _call(self, x: Tensor) -> Tensor:
        """What the block gives for an input; all arguments are copied."""
        rest, named = tree_map(copied, (self.rest, dict(self.named)))
        if self.key:
            output = self.block(*rest, **{self.key: x.clone()}, **named)
        else:
            output = self.block(x.clone(), *rest, **named)
        return first_tensor(output)

    @property
    def leads_around(self) -> bool:
        """Whether its input reaches its output past all of its layers."""
        layers = [
            module
            for module in self.block.modules()
            if module is not self.block
            and any(True for _ in module.parameters(recurse=False))
        ]

        def silence(
            module: nn.Module,
            forward: Callable[..., Any],
            *args: Any,
            **kw: Any,
        ) -> Any:
            return tree_map(silenced, forward(*args, **kw))

        with intercepting(layers, silence):
            return not close(self._call(self.x), self._call(2 * self.x))

    def is_identity(
        self,
        factors: Dict[nn.Module, float],
        bypassed: Sequence[nn.Module] = (),
    ) -> bool:
        """Whether the block then gives back its input."""
        return close(self.output(factors, bypassed), self.x)


@contextmanager
def remembering(block: nn.Module) -> Iterator[None]:
    """Let the layers of a block compute their first output once.

    To find the branches of a block, its modules are silenced one by one:
    what runs before them does the same each time, and large kernels take
    most of the time. What runs behind them seldom sees the same twice, and
    its feature maps may be larger than the model.

    Args:
        block (nn.Module): A part of a throw-away copy of a model.
    """
    known: Dict[nn.Module, Tuple[Tensor, Tensor]] = {}

    def look_up(
        module: nn.Module, forward: Callable[..., Any], *args: Any, **kw: Any
    ) -> Any:
        if kw or len(args) != 1 or not isinstance(args[0], Tensor):
            return forward(*args, **kw)
        if module in known:
            x, y = known[module]
            same = x.shape == args[0].shape and torch.equal(x, args[0])
            return y.clone() if same else forward(*args)
        x, y = args[0].clone(), forward(*args)
        if isinstance(y, Tensor):
            known[module] = x, y.clone()
        return y

    layers = [
        module
        for module in block.modules()
        if isinstance(module, (_ConvNd, nn.Linear))
    ]
    with intercepting(layers, look_up):
        yield


def bypass(module: nn.Module, args: Any, out: Tensor) -> Tensor:
    """Give the input of a module, as torch calls a forward hook."""
    return args[0]


class Scale:
    """Forward hook that multiplies the output of a module.

    Of several outputs, as of an attention, the first one.

    Args:
        factor (float): The number.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, module: nn.Module, args: Any, out: Any) -> Any:
        """Multiply, as torch calls a forward hook."""
        if isinstance(out, tuple):
            return (out[0] * self.factor, *out[1:])
        return out * self.factor


def copied(value: Any) -> Any:
    """A tensor that may be changed in place; other values as they are."""
    return value.clone() if isinstance(value, Tensor) else value


def silenced(value: Any) -> Any:
    """Zeros in place of a tensor of numbers."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.zeros_like(value)
    return value


def first_tensor(output: Any) -> Any:
    """The first tensor of what a module gives; the whole if it has none."""
    if isinstance(output, IteratorType):  # whoever called it reads it
        return output
    return next(iter(flatten_tensors(output)), output)


def close(a: Tensor, b: Tensor, tolerance: float = _TOLERANCE) -> bool:
    """Whether two tensors are equal up to rounding."""
    if a.shape != b.shape:
        return False
    scale = torch.max(b.abs().max(), torch.ones_like(b.flatten()[0]))
    return bool((a - b).abs().max() <= tolerance * scale)
