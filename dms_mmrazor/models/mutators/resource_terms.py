"""Translate a traced supernet into the resource model's data."""

from typing import Dict, List, Optional, Sequence, Tuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dms_mmrazor.core import Dim, ResourceModel, Term
from dms_mmrazor.models.ops import channels_of
from dms_mmrazor.models.tracing import LayerProfile
from dms_mmrazor.models.tracing.layer_profile import kernel_macs
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit

RESOURCE_KINDS = ('macs', 'params')


class SearchedSides:
    """Which units the channels of each layer belong to.

    Args:
        model (nn.Module): The plain supernet.
        units (Sequence[DMSChannelUnit]): Its width units.
        stages (Sequence[DMSDepthUnit]): Its depth units.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[DMSChannelUnit],
        stages: Sequence[DMSDepthUnit],
    ) -> None:
        self.modules = dict(model.named_modules())
        self.sizes = [unit.num_channels for unit in units]
        self.blocks = [name for s in stages for name in s.block_names]
        # (layer, is input side) → [(unit, number of channels)]
        self.parts: Dict[Tuple[str, bool], List[Tuple[int, int]]] = {}
        for index, unit in enumerate(units):
            for channel in [*unit.output_related, *unit.input_related]:
                if channel.name in self.modules:
                    key = (channel.name, not channel.is_output_channel)
                    part = (index, channel.end - channel.start)
                    self.parts.setdefault(key, []).append(part)

    def dim(self, layer: str, is_input: bool) -> Dim:
        """Number of channels on one side of a layer."""
        module = self.modules[layer]
        parts = self.parts.get((layer, is_input), [])
        if isinstance(module, _BatchNorm):
            parts = parts or self.parts.get((layer, not is_input), [])
        searched = sum(channels for _, channels in parts)
        multiples = tuple(
            (unit, channels / self.sizes[unit]) for unit, channels in parts
        )
        total = channels_of(module, is_input)
        return Dim(float(total - searched), multiples)

    def block(self, name: str) -> Optional[int]:
        """Index of the removable block that a layer is in, if any."""
        for index, block in enumerate(self.blocks):
            if name.startswith(block + '.'):
                return index
        return None


def build_resource_models(
    sides: SearchedSides, profiles: Sequence[LayerProfile]
) -> Dict[str, ResourceModel]:
    """MACs per image and parameters of the searched model (Eq. 8).

    Args:
        sides (SearchedSides): The searched supernet.
        profiles (Sequence[LayerProfile]): Its conv and linear layers.

    Returns:
        dict[str, ResourceModel]: By kind, see ``RESOURCE_KINDS``.
    """
    terms = {
        'macs': [_macs_term(sides, profile) for profile in profiles],
        'params': _param_terms(sides),
    }
    counts = (len(sides.sizes), len(sides.blocks))
    return {kind: ResourceModel(terms[kind], *counts) for kind in terms}


def _macs_term(sides: SearchedSides, profile: LayerProfile) -> Term:
    coefficient, dims = _weight_dims(sides, profile.name)
    return Term(
        profile.name,
        coefficient * profile.positions,
        dims,
        sides.block(profile.name),
    )


def _weight_dims(
    sides: SearchedSides, name: str
) -> Tuple[float, Tuple[Dim, ...]]:
    """Entries of a layer's weight: a coefficient times its widths."""
    module = sides.modules[name]
    if not isinstance(module, (nn.Conv2d, nn.Linear)):
        return kernel_macs(module), ()
    out_dim, in_dim = sides.dim(name, False), sides.dim(name, True)
    groups = getattr(module, 'groups', 1)
    kernel = module.weight[0, 0].numel()
    if groups > 1 and groups == module.in_channels:
        return float(kernel), (out_dim,)
    return kernel / groups, (out_dim, in_dim)


def _param_terms(sides: SearchedSides) -> List[Term]:
    """One term per parameter; each parameter counts once."""
    terms = []
    seen = set()
    for name, module in sides.modules.items():
        for key, parameter in module.named_parameters(recurse=False):
            if parameter in seen:
                continue
            seen.add(parameter)
            coefficient, dims = _param_dims(sides, name, key)
            terms.append(Term(name, coefficient, dims, sides.block(name)))
    return terms


def _param_dims(
    sides: SearchedSides, name: str, key: str
) -> Tuple[float, Tuple[Dim, ...]]:
    module = sides.modules[name]
    narrow = isinstance(module, (nn.Conv2d, nn.Linear, _BatchNorm))
    if not narrow or key not in ('weight', 'bias'):
        return float(getattr(module, key).numel()), ()
    if key == 'bias' or isinstance(module, _BatchNorm):
        return 1.0, (sides.dim(name, False),)
    return _weight_dims(sides, name)
