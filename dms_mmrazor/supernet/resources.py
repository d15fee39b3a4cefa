"""Kinds of resources, each of them one entry: what it costs and its unit.

To add one, register what it costs in terms of what is kept, and how it is
counted on a plain model; targets, the resource loss, reports, the rounding at
the end and the structure file take it from here::

    register_resource(Resource('activations', terms=..., count=...))
"""

import re
from typing import (
    Callable,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from torch import nn

from dms_mmrazor.core import Dim, ResourceModel, Term
from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import LayerProfile, count_macs
from dms_mmrazor.graph.demo import DemoInput
from dms_mmrazor.layers import is_layer, kind_of
from dms_mmrazor.layers.block import block_kind_of, find_multiplier
from dms_mmrazor.layers.kind import INPUTS
from dms_mmrazor.supernet.searched_sides import Product, SearchedSides

Target = Union[int, float, str]
Profiles = Sequence[LayerProfile]
Terms = Callable[[SearchedSides, Profiles], Optional[List[Term]]]
Count = Callable[[nn.Module, DemoInput], float]

_NUMBERS = {'K': 1e3, 'M': 1e6, 'G': 1e9}
_ABSOLUTE = re.compile(
    r'^\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*|%)\s*$'
)


class Resource(NamedTuple):
    """A kind of resource.

    Attributes:
        name (str): As in ``target=dict(macs=0.5)``.
        terms (Callable, optional): Gives the terms of the searched sides and
            of the profiles of the layers that run; it gives None for a
            model that has nothing of it. Defaults to None: they come
            later, see :meth:`DMSMutator.add_resource`.
        count (Callable, optional): Counts it on a plain model for one image
            of a demo input. Defaults to None: an exported model
            has what the terms predict.
        units (Mapping[str, float]): What users may write behind a number,
            in terms of the base unit, which needs none. Defaults to K, M, G.
        base (str): Name of the base unit. Defaults to ''.
        shown (tuple[str]): Units in which numbers are shown, largest first.
            Defaults to ('G', 'M', 'K').
        decimals (int): Digits behind the point of a number in full; files
            have one more if there are any. Defaults to 0.
        examples (str): Absolute targets, for messages.
        label (str): Its name in pictures. Defaults to '', ``name``.
        of_input (bool): Whether it depends on the size of the input, which
            structure files then say. Defaults to False.
    """

    name: str
    terms: Optional[Terms] = None
    count: Optional[Count] = None
    units: Mapping[str, float] = _NUMBERS
    base: str = ''
    shown: Tuple[str, ...] = ('G', 'M', 'K')
    decimals: int = 0
    examples: str = "'1G', '300M' or 4.1e9"
    label: str = ''
    of_input: bool = False

    def parse(
        self, target: Target, supernet: float, key: str = 'target'
    ) -> float:
        """A target as an absolute resource.

        Args:
            target (int | float | str): A number in (0, 1] or a text such as
                '50%' is a ratio of the supernet; a larger one or a text with
                a unit ('1G', '3ms') is absolute.
            supernet (float): Resource of the supernet.
            key (str): Config key, for messages. Defaults to 'target'.

        Raises:
            DMSError: If it cannot be read or is not positive.
        """
        value, unit = float('nan'), ''
        if isinstance(target, str):
            match = _ABSOLUTE.match(target)
            unit = match.group(2) if match else ''
            portion = {'': 1.0, '%': supernet / 100}
            factor = {**portion, **self.units}.get(unit)
            if match and factor is not None:
                value = float(match.group(1)) * factor
        elif isinstance(target, (int, float)) and not isinstance(target, bool):
            value = float(target)
        if value <= 1 and not unit:
            value *= supernet
        if not 0 < value < float('inf'):
            raise DMSError(
                f'`{key}` must be a ratio of the supernet in (0, 1] or an '
                f'absolute such as {self.examples}; got {target!r}.'
            )
        return value

    def format(self, value: float) -> str:
        """A number with a unit: '4.1G', '3.31ms'."""
        for unit in self.shown:
            if abs(value) >= self.units[unit]:
                return f'{value / self.units[unit]:.4g}{unit}'
        return f'{value:.4g}{self.base}'

    def in_full(self, value: float) -> str:
        """All digits and the base unit: '1,234,567', '3.314 ms'."""
        return f'{value:,.{self.decimals}f} {self.base}'.rstrip()

    def for_file(self, value: float) -> float:
        """Rounded as in structure files."""
        return round(value, self.decimals + 1 if self.decimals else None)


def _macs_terms(sides: SearchedSides, profiles: Profiles) -> List[Term]:
    """MACs of all layers, for one image (Eq. 8)."""
    return [term for p in profiles for term in _layer_macs(sides, p)]


def _layer_macs(sides: SearchedSides, profile: LayerProfile) -> List[Term]:
    block = find_multiplier(sides.modules, profile.name)
    if block is not None:
        products = block.kind.products(sides, block.name, block.part)
    else:
        share, rows = sides.passing(profile.name)
        products = [
            (share * entries, (*dims, *rows))
            for entries, dims in _weight_products(sides, profile.name)
        ]
    return as_terms(sides, profile.name, products, profile.positions)


def as_terms(
    sides: SearchedSides,
    name: str,
    products: Sequence[Product],
    factor: float = 1.0,
) -> List[Term]:
    """Terms of what a layer costs.

    Args:
        sides (SearchedSides): The searched supernet.
        name (str): The layer; its cost goes with its removable block.
        products (Sequence[Product]): Numbers of channels, multiplied.
        factor (float): What each product costs. Defaults to 1.0.
    """
    block = sides.block(name)
    return [Term(name, c * factor, dims, block) for c, dims in products]


def _weight_products(sides: SearchedSides, name: str) -> List[Product]:
    """What multiplies the input of a layer, in terms of its widths."""
    kind = kind_of(sides.modules[name])
    return [
        product
        for key in kind.weights
        for product in _entries(sides, name, key)
    ]


def _entries(sides: SearchedSides, name: str, key: str) -> List[Product]:
    """Numbers in a parameter of a layer, in terms of its widths."""
    module = sides.modules[name]
    factor, along = kind_of(module).entries(module, key)
    products: List[Product] = [(factor, ())]
    for side in along:
        products = [
            (a * b, (*dims, *more))
            for a, dims in products
            for b, more in sides.products(name, side == INPUTS)
        ]
    return products


def param_terms(sides: SearchedSides, profiles: Profiles) -> List[Term]:
    """Terms of all parameters; each parameter counts once.

    Args:
        sides (SearchedSides): The searched supernet.
        profiles (Sequence[LayerProfile]): Not used.

    Returns:
        list[Term]: Named after the layers that have them.
    """
    terms: List[Term] = []
    seen = set()
    for name, module in sides.modules.items():
        for key, parameter in module.named_parameters(recurse=False):
            if parameter in seen:
                continue
            seen.add(parameter)
            owner = f'{name}.{key}' if name else key
            owner = owner if owner in sides.parts else name
            terms += as_terms(sides, owner, _param_products(sides, name, key))
    return terms


def _param_products(
    sides: SearchedSides, name: str, key: str
) -> List[Product]:
    module = sides.modules[name]
    full_name = f'{name}.{key}' if name else key
    block = block_kind_of(module)
    products = None if block is None else block.entries(sides, name, key)
    if products is not None:
        return products
    if full_name in sides.parts:
        dim: Dim = sides.dim(full_name, False)
        channels = sides.parts[full_name].channels
        return [(getattr(module, key).numel() / channels, (dim,))]
    if is_layer(module):
        return _entries(sides, name, key)
    return [(float(getattr(module, key).numel()), ())]


def _count_params(model: nn.Module, demo: DemoInput) -> float:
    """Parameters of a plain model; each counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


RESOURCES: Dict[str, Resource] = {}
"""All kinds of resources by name, in the order of reports."""


def register_resource(resource: Resource) -> None:
    """Make a kind of resource known to all searches that begin from now on.

    Raises:
        DMSError: If there is one of that name, or a unit that is shown is
            none.
    """
    if resource.name in RESOURCES:
        raise DMSError(f'there is a resource {resource.name!r} already.')
    unknown = [unit for unit in resource.shown if unit not in resource.units]
    if unknown:
        raise DMSError(
            f'resource {resource.name!r} is shown in {unknown[0]!r}, which '
            f'is none of its units {list(resource.units)}.'
        )
    RESOURCES[resource.name] = resource


register_resource(
    Resource('macs', _macs_terms, count_macs, label='MACs', of_input=True)
)
register_resource(
    Resource('params', param_terms, _count_params, label='parameters')
)
register_resource(
    Resource(  # with the terms of a latency table
        'latency',
        units={'us': 1e-3, 'ms': 1.0, 's': 1e3},
        base='ms',
        shown=(),
        decimals=3,
        examples="'3ms' or '800us'",
        label='ms',
    )
)


def format_resource(value: float, kind: str) -> str:
    """A resource with its unit: 4100000000 MACs → '4.1G'."""
    return RESOURCES[kind].format(value)


def build_resource_models(
    sides: SearchedSides, profiles: Profiles
) -> Dict[str, ResourceModel]:
    """All resources of the searched model that need nothing measured.

    Args:
        sides (SearchedSides): The searched supernet.
        profiles (Sequence[LayerProfile]): Its layers that cost MACs.

    Returns:
        dict[str, ResourceModel]: By kind.
    """
    counts = (len(sides.sizes), len(sides.blocks))
    found = {
        name: resource.terms(sides, profiles)
        for name, resource in RESOURCES.items()
        if resource.terms is not None
    }
    return {
        name: ResourceModel(terms, *counts)
        for name, terms in found.items()
        if terms is not None
    }
