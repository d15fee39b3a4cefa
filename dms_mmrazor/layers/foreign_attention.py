"""Attentions of anybody's, whose code takes their dims from what they read.

``x.reshape(B, N, 3, heads, C // heads)`` of an input [B, N, C] is right while
an attention is as wide inside as its input. Where a search makes the input
narrower and leaves the heads as they are, such code asks for dims that are
not there. It is shown the width that it was written for: what it reads gives
nothing but its shape, as the layers that read it have been called before.
Where it runs, nothing is changed.
"""

from functools import lru_cache
from typing import Any, Optional, Tuple, Type

import torch
from torch import Tensor, nn

from dms_mmrazor.errors import raise_device_error
from dms_mmrazor.layers.block import block_kind_of
from dms_mmrazor.layers.kind import (
    channels_of,
    is_weighted,
    kind_of,
)
from dms_mmrazor.layers.own_layers import CODE_ERRORS

_READERS = (
    ('qkv',),
    ('to_qkv',),
    ('c_attn',),
    ('qk', 'v'),
    ('q', 'k', 'v'),
    ('q_proj', 'k_proj', 'v_proj'),
)
"""Layers that read the input of a self-attention, as people call them."""

_WRITERS = ('proj', 'to_out', 'out_proj', 'o_proj', 'c_proj')
"""The layer that gives its output."""

_HEADS = ('num_heads', 'heads', 'n_head', 'n_heads')
"""The number of its heads."""


class ReadsFewer:
    """A self-attention that reads fewer channels than it has inside.

    Mixed into anybody's, whose layers and code it has.

    Attributes:
        needs_width (bool, optional): Whether its code asks for the width
            that it was written for; found out at the first call. Defaults to
            None, not yet.
    """

    needs_width: Optional[bool] = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the attention's own, of tokens [..., C] or maps [B, C, ...]."""
        if self.needs_width is None:
            self.needs_width = not self._runs(x, *args, **kwargs)
        if not self.needs_width:
            return super().forward(x, *args, **kwargs)
        readers = layers_of(self)[0]
        layers = {name: getattr(self, name) for name in readers}
        given = {
            name: _Given(layer, layer(x)) for name, layer in layers.items()
        }
        widened = self._widened(x)
        # An instance's dictionary comes before its modules.
        self.__dict__.update(given)
        try:
            return super().forward(widened, *args, **kwargs)
        finally:
            for name in readers:
                del self.__dict__[name]

    @torch.no_grad()
    def _runs(self, x: Tensor, *args: Any, **kwargs: Any) -> bool:
        """Whether its code runs on what it reads now."""
        # On a copy, which nobody watches, with the same parameters. Some
        # have attributes of one mode alone, so the mode is the same.
        trial = _unwatched(self)
        trial.needs_width = False
        try:
            with torch.random.fork_rng():
                trial(x, *args, **kwargs)
        except CODE_ERRORS as error:
            raise_device_error(error)
            return False
        return True

    def _widened(self, x: Tensor) -> Tensor:
        """Zeros as wide as the attention is inside; they take no memory."""
        readers, writer = layers_of(self)
        reader, shape = getattr(self, readers[0]), list(x.shape)
        dim = 1 if kind_of(reader).channels_first(reader) else -1
        shape[dim] = channels_of(getattr(self, writer), True)
        return x.new_zeros(()).expand(shape)

    def __reduce_ex__(self, protocol: Any) -> Tuple[Any, ...]:
        """For copies and files: its class is made where it is needed."""
        return _restore, (type(self).__mro__[2],), self.__dict__


class _Given:
    """Stands for a layer that was called already.

    Its code may ask it for its weight's device.
    """

    def __init__(self, layer: nn.Module, value: Tensor) -> None:
        self._layer, self._value = layer, value

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def _unwatched(module: nn.Module) -> nn.Module:
    """The same parameters and code, without hooks; buffers of its own."""
    new = type(module).__new__(type(module))
    new.__dict__.update(nn.Module().__dict__)
    own = module.__dict__.items()
    kept = {k: v for k, v in own if not k.endswith('_hooks')}
    kept.pop('forward', None)  # somebody's who looks at what it does
    new.__dict__.update(kept)
    new._buffers = {
        name: None if buffer is None else buffer.clone()
        for name, buffer in module._buffers.items()
    }
    new._modules = {
        name: None if child is None else _unwatched(child)
        for name, child in module._modules.items()
    }
    return new


@lru_cache(maxsize=None)  # a class is made once
def reads_fewer(kind: type) -> Type[nn.Module]:
    """The form of an attention's class that reads fewer channels."""
    return type(f'{kind.__name__}OfFewer', (ReadsFewer, kind), {})


def _restore(kind: type) -> nn.Module:
    """An empty module of that form."""
    form = reads_fewer(kind)
    return form.__new__(form)


def layers_of(module: nn.Module) -> Optional[Tuple[Tuple[str, ...], str]]:
    """Who reads the input of a self-attention, and who gives its output.

    Args:
        module (nn.Module): Any module.

    Returns:
        tuple, optional: Names of its layers; ``None`` if it does not look
        like a self-attention.
    """
    own = module._modules
    if not any(type(getattr(module, key, None)) is int for key in _HEADS):
        return None
    readers = next((names for names in _READERS if names[0] in own), ())
    writer = next((name for name in _WRITERS if name in own), '')
    names = (*readers, writer)
    if not readers or not all(is_weighted(own.get(name)) for name in names):
        return None
    return readers, writer


def fit_foreign_attentions(model: nn.Module) -> None:
    """Let attentions that nobody knows read fewer channels, in place.

    Args:
        model (nn.Module): A plain model; its layers have been narrowed.
    """
    for module in model.modules():
        found = None if block_kind_of(module) else layers_of(module)
        if found is None or isinstance(module, ReadsFewer):
            continue
        (reader, *_), writer = found
        read = channels_of(getattr(module, reader), True)
        if read < channels_of(getattr(module, writer), True):
            module.__class__ = reads_fewer(type(module))
