"""Translate a traced supernet into the resource model's data."""

from typing import Dict, List, Sequence

from dms_mmrazor.core import Dim, ResourceModel, Term
from dms_mmrazor.models.mutators.searched_sides import Product, SearchedSides
from dms_mmrazor.models.ops import (
    channels_of,
    is_attention,
    is_layer,
    is_norm,
    is_weighted,
)
from dms_mmrazor.models.ops.decoders import is_decoder_attention
from dms_mmrazor.models.ops.multihead import (
    KEYS_VALUES,
    QUERIES,
    is_multihead,
)
from dms_mmrazor.models.tracing import LayerProfile
from dms_mmrazor.models.tracing.layer_profile import kernel_macs

RESOURCE_KINDS = ('macs', 'params')


def build_resource_models(
    sides: SearchedSides, profiles: Sequence[LayerProfile]
) -> Dict[str, ResourceModel]:
    """MACs per image and parameters of the searched model (Eq. 8).

    Args:
        sides (SearchedSides): The searched supernet.
        profiles (Sequence[LayerProfile]): Its layers that cost MACs.

    Returns:
        dict[str, ResourceModel]: By kind, see ``RESOURCE_KINDS``.
    """
    terms = {
        'macs': [term for p in profiles for term in _macs_terms(sides, p)],
        'params': _param_terms(sides),
    }
    counts = (len(sides.sizes), len(sides.blocks))
    return {kind: ResourceModel(terms[kind], *counts) for kind in terms}


def _macs_terms(sides: SearchedSides, profile: LayerProfile) -> List[Term]:
    owner, _, part = profile.name.rpartition('.')
    if part in (QUERIES, KEYS_VALUES):
        products = _projection_products(sides, owner, part)
    elif is_attention(sides.modules[profile.name]):
        products = sides.attention_products(profile.name)
    elif is_decoder_attention(sides.modules[profile.name]):
        read = sides.products(f'{profile.name}.o_proj', True)
        products = [(2 * number, dims) for number, dims in read]
    else:
        share, rows = sides.passing(profile.name)
        products = [
            (share * entries, (*dims, *rows))
            for entries, dims in _weight_products(sides, profile.name)
        ]
    return _terms(sides, profile.name, products, profile.positions)


def _terms(
    sides: SearchedSides,
    name: str,
    products: Sequence[Product],
    factor: float = 1.0,
) -> List[Term]:
    block = sides.block(name)
    return [Term(name, c * factor, dims, block) for c, dims in products]


def _weight_products(sides: SearchedSides, name: str) -> List[Product]:
    """Entries of a layer's weight: coefficients times its widths."""
    module = sides.modules[name]
    if not is_weighted(module):
        return [(kernel_macs(module), ())]
    groups = getattr(module, 'groups', 1)
    kernel = module.weight[0, 0].numel() / groups
    inputs = sides.products(name, True)
    if groups > 1 and groups == module.in_channels:
        inputs = [(float(groups), ())]
    return [
        (kernel * a * b, (*out_dims, *in_dims))
        for a, out_dims in sides.products(name, False)
        for b, in_dims in inputs
    ]


def _projection_products(
    sides: SearchedSides, name: str, part: str = ''
) -> List[Product]:
    """Entries of the input projection of torch's attention, or of a part."""
    queries, values = sides.attention_products(name)
    rows = {QUERIES: [queries], KEYS_VALUES: [queries, values]}
    columns = sides.dim(f'{name}.in_proj_weight', False)
    return [
        (a, (*dims, columns))
        for a, dims in rows.get(part, sides.projected(name))
    ]


def _param_terms(sides: SearchedSides) -> List[Term]:
    """Terms of all parameters; each parameter counts once."""
    terms: List[Term] = []
    seen = set()
    for name, module in sides.modules.items():
        for key, parameter in module.named_parameters(recurse=False):
            if parameter in seen:
                continue
            seen.add(parameter)
            owner = f'{name}.{key}' if name else key
            owner = owner if owner in sides.parts else name
            terms += _terms(sides, owner, _param_products(sides, name, key))
    return terms


def _param_products(
    sides: SearchedSides, name: str, key: str
) -> List[Product]:
    module = sides.modules[name]
    full_name = f'{name}.{key}' if name else key
    if is_multihead(module) and key == 'in_proj_weight':
        return _projection_products(sides, name)
    if is_multihead(module) and key == 'in_proj_bias':
        return sides.projected(name)
    if full_name in sides.parts:
        dim: Dim = sides.dim(full_name, False)
        channels = sides.parts[full_name].channels
        return [(getattr(module, key).numel() / channels, (dim,))]
    if is_norm(module):  # of several dimensions, maybe
        each = getattr(module, key).numel() / channels_of(module, False)
        return [(each, (sides.dim(name, False),))]
    if not is_layer(module) or key not in ('weight', 'bias'):
        return [(float(getattr(module, key).numel()), ())]
    if key == 'bias':
        return sides.products(name, False)
    return _weight_products(sides, name)
