"""The parameters of a decoder's layers, without embedding and predictor.

Published ratios are often of these alone: in a small model the embedding,
which is not searched, is a large part of all.
"""

from typing import Dict, List, Optional, Sequence

from torch import nn

from dms_mmrazor.core import Term
from dms_mmrazor.graph import LayerProfile
from dms_mmrazor.graph.demo import DemoInput
from dms_mmrazor.plugins.transformers.decoders import is_decoder
from dms_mmrazor.supernet.resources import (
    Resource,
    param_terms,
    register_resource,
)
from dms_mmrazor.supernet.searched_sides import SearchedSides

NAME = 'layer_params'


def _terms(
    sides: SearchedSides, profiles: Sequence[LayerProfile]
) -> Optional[List[Term]]:
    """Of all parameters those in the layers; None without a decoder."""
    inside = tuple(
        f'{name}.layers.' if name else 'layers.'
        for name, module in sides.modules.items()
        if is_decoder(module)
    )
    if not inside:
        return None
    terms = param_terms(sides, profiles)
    return [term for term in terms if term.layer.startswith(inside)]


def _count(model: nn.Module, demo: DemoInput) -> float:
    """The same on a plain model; each counts once."""
    found: Dict[nn.Parameter, int] = {
        parameter: parameter.numel()
        for module in model.modules()
        if is_decoder(module)
        for parameter in module.layers.parameters()
    }
    return float(sum(found.values()))


register_resource(
    Resource(NAME, _terms, _count, label='parameters of the layers')
)
