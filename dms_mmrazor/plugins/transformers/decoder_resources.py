"""Resources of language models: what their layers hold, what a token costs.

``layer_params`` are the parameters of a decoder's layers, without embedding
and predictor. Published ratios are often of these alone: in a small model the
embedding, which is not searched, is a large part of all.

``token_macs`` are the MACs of one token at a stated context: those of a
sequence as long as the example inputs, L tokens, divided by L. An attention
counts all L² pairs, so that each token is compared with L keys: that is what
the last token of this context costs where keys and values are cached.
"""

from typing import Dict, Iterator, List, Optional, Sequence

from torch import nn

from dms_mmrazor.core import Term
from dms_mmrazor.graph import LayerProfile, profile_layers
from dms_mmrazor.graph.demo import DemoInput
from dms_mmrazor.graph.layer_profile import macs_by_layer
from dms_mmrazor.plugins.transformers.decoders import decoders, is_decoder
from dms_mmrazor.supernet.resources import (
    RESOURCES,
    Resource,
    param_terms,
    register_resource,
)
from dms_mmrazor.supernet.searched_sides import SearchedSides

LAYER_PARAMS, TOKEN_MACS = 'layer_params', 'token_macs'

Profiles = Sequence[LayerProfile]


def _layer_param_terms(
    sides: SearchedSides, profiles: Profiles
) -> Optional[List[Term]]:
    """Of all parameters those in the layers; None without a decoder."""
    inside = tuple(_prefixes(sides.modules))
    if not inside:
        return None
    terms = param_terms(sides, profiles)
    return [term for term in terms if term.layer.startswith(inside)]


def _count_layer_params(model: nn.Module, demo: DemoInput) -> float:
    """The same on a plain model; each counts once."""
    found: Dict[nn.Parameter, int] = {
        parameter: parameter.numel()
        for _, decoder in decoders(model)
        for parameter in decoder.layers.parameters()
    }
    return float(sum(found.values()))


def _token_macs_terms(
    sides: SearchedSides, profiles: Profiles
) -> Optional[List[Term]]:
    """Those of ``macs`` for one token; None without a decoder."""
    tokens = _tokens(list(_prefixes(sides.modules)), profiles)
    if not tokens:
        return None
    return [
        term._replace(coefficient=term.coefficient / tokens)
        for term in RESOURCES['macs'].terms(sides, profiles)
    ]


def _count_token_macs(model: nn.Module, demo: DemoInput) -> float:
    """The same on a plain model."""
    profiles = profile_layers(model, demo)
    prefixes = list(_prefixes(dict(model.named_modules())))
    return sum(macs_by_layer(model, profiles)) / _tokens(prefixes, profiles)


def _prefixes(modules: Dict[str, nn.Module]) -> Iterator[str]:
    """What the names of the layers of each decoder begin with."""
    for name, module in modules.items():
        if is_decoder(module):
            yield f'{name}.layers.' if name else 'layers.'


def _tokens(prefixes: Sequence[str], profiles: Profiles) -> int:
    """Tokens of one example: how often a layer of a decoder is applied."""
    for profile in profiles:
        # The attention itself is profiled by its pairs of tokens.
        if profile.name.startswith(tuple(prefixes)) and profile.name.endswith(
            '_proj'
        ):
            return profile.positions
    return 0


register_resource(
    Resource(
        LAYER_PARAMS,
        _layer_param_terms,
        _count_layer_params,
        label='parameters of the layers',
    )
)
register_resource(
    Resource(
        TOKEN_MACS,
        _token_macs_terms,
        _count_token_macs,
        label='MACs per token',
        of_input=True,
    )
)
