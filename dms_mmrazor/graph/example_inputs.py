"""Arguments of a forward pass that are no single batch of images.

Where a shape (B, C, H, W) says what a model is run on, these can stand in
its place: several tensors, keyword arguments, token ids.
"""

from typing import (
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
)

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from dms_mmrazor.errors import DMSError

KEY = 'example_inputs'

Change = Callable[[Tensor], Tensor]


class ExampleInputs:
    """What a model is called with.

    Has what a run asks of a batch of images: its type, its device, to be
    moved. What is done to a type is done to real numbers alone.

    Attributes:
        args (tuple): Positional arguments.
        kwargs (dict): Keyword arguments.

    Args:
        args (Sequence): Positional arguments.
        kwargs (Mapping, optional): Keyword arguments. Defaults to None.

    Raises:
        DMSError: If there is no tensor among them.
    """

    def __init__(
        self, args: Sequence[Any], kwargs: Optional[Mapping[str, Any]] = None
    ) -> None:
        self.args = tuple(args)
        self.kwargs = dict(kwargs or {})
        if not self.tensors:
            raise DMSError(
                f'`{KEY}` has no tensor: give what `model` is called with, a '
                'tensor, a tuple of arguments or a dict of keyword arguments.'
            )

    @property
    def tensors(self) -> List[Tensor]:
        """All tensors, however nested, in order."""
        leaves, _ = tree_flatten((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    @property
    def batch(self) -> int:
        """Examples in it: the first dimension that all tensors share.

        1 if there is none, or a single vector of real numbers; what is
        counted is then for all of it.
        """
        sizes = {t.shape[0] for t in self.tensors if t.dim()}
        alone = all(
            t.dim() < 2 and t.is_floating_point() for t in self.tensors
        )
        return sizes.pop() if len(sizes) == 1 and not alone else 1

    @property
    def shapes(self) -> Dict[str, List[int]]:
        """Shapes of the tensors of one example, by argument."""
        named = [*enumerate(self.args), *self.kwargs.items()]
        shapes: Dict[str, List[int]] = {}
        for name, value in named:
            tensors = ExampleInputs((value,)).tensors if _any(value) else []
            for index, tensor in enumerate(tensors):
                key = f'{name}[{index}]' if len(tensors) > 1 else str(name)
                shapes[key] = list(tensor.shape[1:])
        return shapes

    def call(self, model: nn.Module) -> Any:
        """Run a model on it, or whatever else takes these arguments."""
        args, kwargs = tree_map(lambda value: value, (self.args, self.kwargs))
        return model(*args, **kwargs)

    def with_tensors(self, tensors: Sequence[Any]) -> 'ExampleInputs':
        """The same arguments with other values in place of the tensors."""
        leaves, spec = tree_flatten((self.args, self.kwargs))
        given = iter(tensors)
        leaves = [next(given) if isinstance(x, Tensor) else x for x in leaves]
        other = object.__new__(ExampleInputs)
        other.args, other.kwargs = tree_unflatten(leaves, spec)
        return other

    def first(self) -> 'ExampleInputs':
        """The first example of a batch."""
        if self.batch == 1:
            return self
        return self._changed(lambda t: t[:1] if t.dim() else t)

    def for_norms(self) -> 'ExampleInputs':
        """Two examples at least: norms in training need several values."""
        if self.batch > 1 or any(t.dim() == 0 for t in self.tensors):
            return self
        if any(t.shape[0] != 1 for t in self.tensors):
            return self
        return self._changed(lambda tensor: tensor.repeat_interleave(2, 0))

    def _changed(self, change: Change) -> 'ExampleInputs':
        return self.with_tensors([change(t) for t in self.tensors])

    def _real(self, change: Change) -> 'ExampleInputs':
        return self._changed(
            lambda t: change(t) if t.is_floating_point() else t
        )

    # What a run asks of a batch of images, too.

    @property
    def device(self) -> torch.device:
        """Of the first tensor."""
        return self.tensors[0].device

    def element_size(self) -> int:
        """Bytes of the smallest real number; 4 if there is none."""
        real = [t for t in self.tensors if t.is_floating_point()]
        return min((t.element_size() for t in real), default=4)

    def float(self) -> 'ExampleInputs':
        """In single precision."""
        return self._real(Tensor.float)

    def double(self) -> 'ExampleInputs':
        """In double precision."""
        return self._real(Tensor.double)

    def to(self, like: Tensor) -> 'ExampleInputs':
        """On the device of a tensor, real numbers in its type."""
        moved = self._changed(lambda t: t.detach().to(like.device))
        return moved._real(lambda t: t.to(like))

    def __str__(self) -> str:
        """One line for messages: types and shapes."""
        shown = tree_map(_Shown.of, (self.args, self.kwargs))
        args = [repr(value) for value in shown[0]]
        named = [f'{key}={value!r}' for key, value in shown[1].items()]
        return f'({", ".join([*args, *named])})'


class _Shown:
    """A tensor in a message: 'int64[2, 16]'."""

    def __init__(self, tensor: Tensor) -> None:
        kind = str(tensor.dtype).rpartition('.')[2]
        self.text = f'{kind}{list(tensor.shape)}'

    @classmethod
    def of(cls, value: Any) -> Any:
        """The value, or what stands for it."""
        return cls(value) if isinstance(value, Tensor) else value

    def __repr__(self) -> str:
        return self.text


def _any(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in tree_flatten(value)[0])


def as_example(inputs: Any) -> ExampleInputs:
    """What a user gave as the inputs of a model.

    Args:
        inputs (Tensor | Sequence | Mapping | ExampleInputs): A single
            argument, positional ones, or keyword arguments.

    Raises:
        DMSError: If it is nothing of this, or has no tensor.
    """
    if isinstance(inputs, ExampleInputs):
        return inputs
    if isinstance(inputs, Tensor):
        return ExampleInputs((inputs,))
    if isinstance(inputs, Mapping):
        return ExampleInputs((), inputs)
    if isinstance(inputs, (tuple, list)):
        return ExampleInputs(inputs)
    raise DMSError(
        f'`{KEY}` must be what `model` is called with: a tensor, a tuple of '
        'arguments or a dict of keyword arguments; got '
        f'{type(inputs).__name__}.'
    )


def with_flat_forward(model: nn.Module, example: ExampleInputs) -> nn.Module:
    """Let ``forward`` take the tensors of an example as one list.

    For tracing: what is no tensor, and what has a default, is as in the
    example.

    Args:
        model (nn.Module): A throw-away copy; its class changes.
        example (ExampleInputs): What it is called with.
    """
    kind = type(model)
    number = len(example.tensors)

    def forward(self: nn.Module, inputs: Any) -> Any:
        given = example.with_tensors([inputs[i] for i in range(number)])
        return kind.forward(self, *given.args, **given.kwargs)

    model.__class__ = type(kind.__name__, (kind,), {'forward': forward})
    return model
