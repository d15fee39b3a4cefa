"""Attentions of anybody's, whose code takes their dims from what they read.

``x.reshape(B, N, 3, heads, C // heads)`` of an input [B, N, C] is right while
an attention is as wide inside as its input. Where a search makes the input
narrower and leaves the heads as they are, such code asks for dims that are
not there. It is shown the width that it was written for: what it reads gives
nothing but its shape, as the layers that read it have been called before.
"""

from typing import Any, Callable, Dict, Optional, Tuple, Type

from torch import Tensor, nn

from dms_mmrazor.layers.block import block_kind_of
from dms_mmrazor.layers.kind import (
    channels_of,
    is_layer,
    is_weighted,
    kind_of,
)

_READERS = (
    ('qkv',),
    ('to_qkv',),
    ('qk', 'v'),
    ('q', 'k', 'v'),
    ('q_proj', 'k_proj', 'v_proj'),
)
"""Layers that read the input of a self-attention, as people call them."""

_WRITERS = ('proj', 'to_out', 'out_proj', 'o_proj')
"""The layer that gives its output."""


class ReadsFewer:
    """A self-attention that reads fewer channels than it has inside.

    Mixed into anybody's, whose layers and code it has.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the attention's own, of tokens [..., C] or maps [B, C, ...]."""
        readers, writer = layers_of(self)
        rows = {name: getattr(self, name)(x) for name in readers}
        width = channels_of(getattr(self, writer), True)
        reader = getattr(self, readers[0])
        shape = list(x.shape)
        shape[1 if kind_of(reader).channels_first(reader) else -1] = width
        # An instance's dictionary comes before its modules.
        self.__dict__.update({n: _giving(row) for n, row in rows.items()})
        try:
            return super().forward(
                x.new_zeros(()).expand(shape), *args, **kwargs
            )
        finally:
            for name in readers:
                del self.__dict__[name]

    def __reduce_ex__(self, protocol: Any) -> Tuple[Any, ...]:
        """For copies and files: its class is made where it is needed."""
        return _restore, (type(self).__mro__[2],), self.__dict__


def _giving(value: Tensor) -> Callable[..., Tensor]:
    """Stands for a layer that was called already."""
    return lambda *args, **kwargs: value


_FORMS: Dict[type, Type[nn.Module]] = {}


def reads_fewer(kind: type) -> Type[nn.Module]:
    """The form of an attention's class that reads fewer channels."""
    if kind not in _FORMS:
        name = f'{kind.__name__}OfFewer'
        _FORMS[kind] = type(name, (ReadsFewer, kind), {})
    return _FORMS[kind]


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
    if not isinstance(getattr(module, 'num_heads', None), int):
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
        readers, writer = found
        read = channels_of(getattr(module, readers[0]), True)
        others = {*module._modules} - {*readers, writer}
        passed = any(
            is_layer(module._modules[name])
            and channels_of(module._modules[name], True) == read
            for name in others
        )
        inside = channels_of(getattr(module, writer), True)
        # What reads its input besides, a norm, must see it as it is.
        if read < inside and not passed:
            module.__class__ = reads_fewer(type(module))
