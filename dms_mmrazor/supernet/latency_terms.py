"""Translate fitted latencies of layers into the resource model's data."""

from typing import List, Mapping, NamedTuple, Optional, Sequence, Tuple

from dms_mmrazor.core import LatencyFit, Term
from dms_mmrazor.graph import LayerProfile
from dms_mmrazor.layers import channels_of, is_depthwise
from dms_mmrazor.layers.block import block_kind_of, find_multiplier
from dms_mmrazor.supernet.searched_sides import Product, SearchedSides


class LayerWidths(NamedTuple):
    """The widths of a conv or linear layer in terms of the search's units.

    Attributes:
        name (str): Name of the layer.
        channels (tuple[int, int]): Input and output channels of the
            supernet.
        inputs (tuple): Kept input channels, as a sum of products.
        outputs (tuple): Kept output channels, as a sum of products.
        block (int, optional): Index of its removable block, if any.
    """

    name: str
    channels: Tuple[int, int]
    inputs: Tuple[Product, ...]
    outputs: Tuple[Product, ...]
    block: Optional[int]


def layer_widths(
    sides: SearchedSides, profiles: Sequence[LayerProfile]
) -> Tuple[LayerWidths, ...]:
    """Widths of all conv and linear layers that run.

    Args:
        sides (SearchedSides): The searched supernet.
        profiles (Sequence[LayerProfile]): Its layers that cost MACs.
    """
    return tuple(
        LayerWidths(
            p.name,
            (
                channels_of(sides.modules[p.name], True),
                channels_of(sides.modules[p.name], False),
            ),
            _inputs(sides, p.name),
            tuple(sides.products(p.name, False)),
            sides.block(p.name),
        )
        for p in profiles
        if _is_called(sides, p.name)
    )


def _is_called(sides: SearchedSides, name: str) -> bool:
    """Whether it is a layer that runs by itself, and can be timed."""
    # Its products are timed with the layers around them.
    if find_multiplier(sides.modules, name) is not None:
        return False
    owner, _, child = name.rpartition('.')
    kind = block_kind_of(sides.modules[owner])
    return kind is None or child not in kind.uncalled


def _inputs(sides: SearchedSides, name: str) -> Tuple[Product, ...]:
    """Kept inputs; those of a depthwise convolution are its outputs."""
    if is_depthwise(sides.modules[name]):
        return ((float(channels_of(sides.modules[name], True)), ()),)
    return tuple(sides.products(name, True))


def latency_terms(
    layers: Sequence[LayerWidths], fits: Mapping[str, LatencyFit]
) -> List[Term]:
    """Terms of l · f(a_in, a_out) of all layers (Eq. 9), in milliseconds.

    Args:
        layers (Sequence[LayerWidths]): The layers.
        fits (Mapping[str, LatencyFit]): Of each of them, by name.
    """
    return [term for layer in layers for term in _terms(layer, fits)]


def _terms(layer: LayerWidths, fits: Mapping[str, LatencyFit]) -> List[Term]:
    fit = fits[layer.name]
    one: Tuple[Product, ...] = ((1.0, ()),)
    x = tuple((a / layer.channels[0], dims) for a, dims in layer.inputs)
    y = tuple((b / layer.channels[1], dims) for b, dims in layer.outputs)
    factors = ((one, one), (x, one), (one, y), (x, y))
    return [
        Term(
            layer.name,
            fit.full * share * a * b,
            (*in_dims, *out_dims),
            layer.block,
        )
        for share, (first, second) in zip(fit.shares, factors)
        for a, in_dims in first
        for b, out_dims in second
        if share > 0
    ]
