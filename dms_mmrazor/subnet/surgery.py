"""Cut a plain model down to a structure.

Works on plain layers only and leaves plain layers, so that the result's
checkpoint has plain keys and its forward is what the architecture's own code
says.
"""

from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError, raise_device_error
from dms_mmrazor.graph.light_copy import cut_copy
from dms_mmrazor.graph.tied_weights import tied_parameters
from dms_mmrazor.layers import (
    Part,
    can_narrow,
    channels_of,
    is_attention,
    named_parts,
    narrow_layer,
)
from dms_mmrazor.layers.block import refresh_attributes
from dms_mmrazor.layers.block_lists import remove_blocks
from dms_mmrazor.layers.foreign_attention import fit_foreign_attentions
from dms_mmrazor.subnet.structure import (
    LayerSlice,
    Structure,
    UnitStructure,
)


def prune(model: nn.Module, structure: Structure) -> nn.Module:
    """Narrow the layers and remove the blocks that a structure drops.

    Args:
        model (nn.Module): The plain supernet; it is changed in place.
        structure (Structure): What to keep.

    Returns:
        nn.Module: ``model``.

    Raises:
        DMSError: If the structure belongs to another architecture.
    """
    modules = named_parts(model)
    _check_architecture(modules, structure)
    outputs: Dict[str, Tensor] = {}
    inputs: Dict[str, Tensor] = {}
    for unit in structure.units:
        kept = torch.tensor(unit.kept)
        for layer_slice in unit.outputs:
            _drop(outputs, modules, layer_slice, kept, unit.size, False)
        for layer_slice in unit.inputs:
            _drop(inputs, modules, layer_slice, kept, unit.size, True)
    # Each layer gets a cut parameter of its own, tied ones too.
    tied = tied_parameters(model)
    for name in {**outputs, **inputs}:
        kept = _indices(outputs.get(name)), _indices(inputs.get(name))
        try:
            narrow_layer(modules[name], *kept)
        except (RuntimeError, ValueError) as error:
            raise_device_error(error)
            raise DMSError(f'layer {name!r}: {error}') from error
    _tie(tied)
    # Last: names of layers would be others in shorter lists.
    remove_blocks(model, structure.removed_blocks)
    refresh_attributes(model)
    fit_foreign_attentions(model)
    return model


def pruned_copy(
    model: nn.Module,
    structure: Structure,
    before: Optional[Callable[[nn.Module], None]] = None,
) -> nn.Module:
    """A copy that is cut down to a structure.

    What is not cut shares its values with the original: the copy takes no
    more memory than the subnet's cut weights.

    Args:
        model (nn.Module): The plain supernet; it is not changed.
        structure (Structure): What to keep.
        before (Callable, optional): Takes the copy before it is cut.
            Defaults to None.

    Raises:
        DMSError: If the structure belongs to another architecture.
    """
    # Their queries are scaled in place.
    attentions = [part for part in model.modules() if is_attention(part)]
    copy = cut_copy(model, attentions)
    if before is not None:
        before(copy)
    return prune(copy, structure)


def _tie(owners: Sequence[Sequence[Tuple[nn.Module, str]]]) -> None:
    """Let layers that shared a parameter share what is left of it.

    Raises:
        DMSError: If they were cut differently.
    """
    for (first, first_key), *others in owners:
        parameter = first._parameters[first_key]
        for module, key in others:
            if module._parameters[key].shape != parameter.shape:
                raise DMSError(
                    f'a {type(first).__name__} and a {type(module).__name__} '
                    f'share their {key} of {tuple(parameter.shape)}, but '
                    'are cut differently: tie their channels by '
                    '`mutator.groups`.'
                )
            module._parameters[key] = parameter


def count_weighted_layers(modules: Dict[str, Part]) -> int:
    """Number of modules that own parameters."""
    return sum(
        isinstance(module, nn.Module) and bool(module._parameters)
        for module in modules.values()
    )


def count_touched_channels(
    modules: Dict[str, Part], units: Sequence[UnitStructure]
) -> int:
    """Channels of all sides of layers that units touch, searched or not.

    Args:
        modules (dict[str, Part]): Parts of the plain supernet.
        units (Sequence[UnitStructure]): What they narrow.
    """
    sides = {
        (part.layer, is_input)
        for unit in units
        for is_input, parts in enumerate((unit.outputs, unit.inputs))
        for part in parts
    }
    return sum(channels_of(modules[layer], bool(i)) for layer, i in sides)


def strides_of(modules: Mapping[str, Any]) -> Dict[str, str]:
    """Layer → stride, as '2' or '2x1', of all layers with another than 1.

    Weights fit whatever the stride is: this is what a structure and its
    resources were found with, and no shape tells.

    Args:
        modules (Mapping[str, Any]): Modules (and other parts) by name.
    """
    found = {}
    for name, module in modules.items():
        stride = getattr(module, 'stride', None)
        is_layer = isinstance(module, nn.Module) and not any(module.children())
        if not is_layer or not isinstance(stride, (int, tuple)):
            continue
        sides = stride if isinstance(stride, tuple) else (stride,)
        sides = sides[:1] if len(set(sides)) == 1 else sides
        found[name] = 'x'.join(str(side) for side in sides)
    return {name: text for name, text in found.items() if text != '1'}


def _check_strides(
    modules: Mapping[str, Any], wanted: Optional[Mapping[str, str]]
) -> None:
    """Raise if a layer has another stride than the supernet's had."""
    if wanted is None:
        return
    strides = strides_of(modules)
    for name in {**wanted, **strides}:
        now, then = strides.get(name, '1'), wanted.get(name, '1')
        if name in modules and now != then:
            raise DMSError(
                f'layer {name!r} has stride {now}, the supernet of the '
                f'structure had {then}: its MACs and its accuracy are of '
                f'another network. Set the strides of `model.architecture` '
                'as in the search, or search again.'
            )


def _check_architecture(
    modules: Dict[str, Part], structure: Structure
) -> None:
    """Raise unless every layer of the structure is in the model."""
    hint = 'the structure belongs to another architecture.'
    for unit in structure.units:
        for layer_slice in (*unit.outputs, *unit.inputs):
            if not can_narrow(modules.get(layer_slice.layer)):
                raise DMSError(
                    f'the model has no conv, linear or norm layer '
                    f'{layer_slice.layer!r} (unit {unit.name!r}): {hint}'
                )
    for stage in structure.stages:
        for block in stage.blocks:
            if block not in modules:
                raise DMSError(
                    f'the model has no block {block!r} (stage '
                    f'{stage.name!r}): {hint}'
                )
    layers = count_weighted_layers(modules)
    if layers != structure.layers:
        raise DMSError(
            f'the model has {layers} layers with weights, the supernet of '
            f'the structure had {structure.layers}: {hint}'
        )
    channels = count_touched_channels(modules, structure.units)
    if channels != structure.channels:
        raise DMSError(
            f'the searched layers of the model have {channels} channels, '
            f'those of the supernet had {structure.channels}: {hint}'
        )
    _check_strides(modules, structure.strides)


def _drop(
    masks: Dict[str, Tensor],
    modules: Dict[str, Part],
    layer_slice: LayerSlice,
    kept: Tensor,
    size: int,
    is_input: bool,
) -> None:
    """Mark the channels of one layer that a unit does not keep."""
    name, start, end = layer_slice
    total = channels_of(modules[name], is_input)
    ratio, rest = divmod(end - start, size)
    if end > total or rest:
        raise DMSError(
            f'layer {name!r} has {total} channels, the structure ties '
            f'{start} … {end} of them to a unit of {size}: the structure '
            'belongs to another architecture.'
        )
    mask = masks.setdefault(name, torch.ones(total, dtype=torch.bool))
    unit_mask = torch.zeros(size, dtype=torch.bool)
    unit_mask[kept] = True
    mask[start:end] = unit_mask.repeat_interleave(ratio)


def _indices(mask: Optional[Tensor]) -> Optional[Tensor]:
    return None if mask is None else mask.nonzero().flatten()
