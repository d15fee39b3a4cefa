"""Cut a plain model down to a structure.

Works on plain layers only and leaves plain layers, so that the result's
checkpoint has plain keys and its forward is what the architecture's own code
says.
"""

from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.subnet.structure import LayerSlice, Structure

Indices = Optional[Tensor]


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
    modules = dict(model.named_modules())
    _check_architecture(modules, structure)
    outputs: Dict[str, Tensor] = {}
    inputs: Dict[str, Tensor] = {}
    for unit in structure.units:
        kept = torch.tensor(unit.kept)
        for layer_slice in unit.outputs:
            _drop(outputs, modules, layer_slice, kept, unit.size, False)
        for layer_slice in unit.inputs:
            _drop(inputs, modules, layer_slice, kept, unit.size, True)
    for name in {**outputs, **inputs}:
        out_mask, in_mask = outputs.get(name), inputs.get(name)
        narrow_layer(modules[name], _indices(out_mask), _indices(in_mask))
    remove_blocks(model, structure.removed_blocks)
    return model


def count_weighted_layers(modules: Dict[str, nn.Module]) -> int:
    """Number of modules that own parameters."""
    return sum(bool(module._parameters) for module in modules.values())


def channels_of(module: nn.Module, is_input: bool) -> int:
    """Number of channels on one side of a layer."""
    if isinstance(module, _BatchNorm):
        return module.num_features
    if isinstance(module, nn.Linear):
        return module.in_features if is_input else module.out_features
    return module.in_channels if is_input else module.out_channels


def _check_architecture(
    modules: Dict[str, nn.Module], structure: Structure
) -> None:
    """Raise unless every layer of the structure is in the model."""
    hint = 'the structure belongs to another architecture.'
    for unit in structure.units:
        for layer_slice in (*unit.outputs, *unit.inputs):
            if layer_slice.layer not in modules:
                raise DMSError(
                    f'the model has no layer {layer_slice.layer!r} (unit '
                    f'{unit.name!r}): {hint}'
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


def _drop(
    masks: Dict[str, Tensor],
    modules: Dict[str, nn.Module],
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


def _indices(mask: Optional[Tensor]) -> Indices:
    return None if mask is None else mask.nonzero().flatten()


def narrow_layer(
    layer: nn.Module, out_kept: Indices, in_kept: Indices
) -> nn.Module:
    """Keep some channels of a conv, linear or batch norm layer, in place.

    Args:
        layer (nn.Module): A plain layer.
        out_kept (Tensor, optional): Output channels to keep. Defaults to
            all.
        in_kept (Tensor, optional): Input channels to keep. Defaults to all.

    Raises:
        DMSError: If the type is not supported, or the groups of a
            convolution would become unequal.
    """
    if isinstance(layer, _BatchNorm):
        _narrow_batch_norm(layer, out_kept if in_kept is None else in_kept)
    elif isinstance(layer, nn.Linear):
        _narrow_linear(layer, out_kept, in_kept)
    elif isinstance(layer, nn.Conv2d):
        _narrow_conv(layer, out_kept, in_kept)
    else:
        raise DMSError(f'cannot narrow a {type(layer).__name__}.')
    return layer


def _select(
    tensor: Optional[Tensor], dim: int, kept: Indices
) -> Optional[Tensor]:
    """Some slices of a tensor; a parameter stays a parameter."""
    if tensor is None or kept is None:
        return tensor
    data = tensor.detach().index_select(dim, kept.to(tensor.device))
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(data, requires_grad=tensor.requires_grad)
    return data


def _narrow_batch_norm(layer: _BatchNorm, kept: Indices) -> None:
    if kept is None:
        return
    layer.num_features = len(kept)
    layer.weight = _select(layer.weight, 0, kept)
    layer.bias = _select(layer.bias, 0, kept)
    layer.running_mean = _select(layer.running_mean, 0, kept)
    layer.running_var = _select(layer.running_var, 0, kept)


def _narrow_linear(
    layer: nn.Linear, out_kept: Indices, in_kept: Indices
) -> None:
    layer.weight = _select(_select(layer.weight, 0, out_kept), 1, in_kept)
    layer.bias = _select(layer.bias, 0, out_kept)
    layer.out_features, layer.in_features = layer.weight.shape


def _narrow_conv(
    layer: nn.Conv2d, out_kept: Indices, in_kept: Indices
) -> None:
    if layer.groups == 1:
        weight = _select(_select(layer.weight, 0, out_kept), 1, in_kept)
        layer.in_channels = weight.shape[1]
    else:
        weight, groups = _grouped_weight(layer, out_kept, in_kept)
        layer.groups = groups
        layer.in_channels = weight.shape[1] * groups
    layer.weight = weight
    layer.bias = _select(layer.bias, 0, out_kept)
    layer.out_channels = weight.shape[0]


def _grouped_weight(
    layer: nn.Conv2d, out_kept: Indices, in_kept: Indices
) -> Tuple[Tensor, int]:
    """Kept weight of a grouped convolution, and its number of groups."""
    outs = _by_group(layer.out_channels, layer.groups, out_kept)
    ins = _by_group(layer.in_channels, layer.groups, in_kept)
    per_out = layer.out_channels // layer.groups
    rows, sizes = [], set()
    for group, (out, inner) in enumerate(zip(outs, ins)):
        if len(out) == 0 or len(inner) == 0:
            if len(out) != len(inner) and in_kept is not None:
                raise DMSError(
                    f'a grouped convolution would keep {len(out)} outputs '
                    f'and {len(inner)} inputs of group {group}.'
                )
            continue
        sizes.add((len(out), len(inner)))
        rows.append(layer.weight[out + group * per_out][:, inner])
    if len(sizes) != 1:
        raise DMSError(
            'the groups of a convolution would become unequal (outputs, '
            f'inputs): {sorted(sizes)}.'
        )
    weight = torch.cat([row.detach() for row in rows])
    trains = layer.weight.requires_grad
    return nn.Parameter(weight, requires_grad=trains), len(rows)


def _by_group(channels: int, groups: int, kept: Indices) -> List[Tensor]:
    """Kept channels of each group, counted from the group's first."""
    mask = torch.ones(channels, dtype=torch.bool)
    if kept is not None:
        mask.zero_()
        mask[kept] = True
    return [part.nonzero().flatten() for part in mask.view(groups, -1)]


def remove_blocks(model: nn.Module, names: List[str]) -> None:
    """Delete blocks from their containers and close the gaps in the keys."""
    containers: Dict[str, List[str]] = {}
    for name in names:
        parent, _, child = name.rpartition('.')
        containers.setdefault(parent, []).append(child)
    for parent, removed in containers.items():
        container = model.get_submodule(parent)
        kept = [
            (name, module)
            for name, module in container.named_children()
            if name not in removed
        ]
        numbered = all(name.isdigit() for name, _ in kept)
        container._modules.clear()
        for index, (name, module) in enumerate(kept):
            container.add_module(str(index) if numbered else name, module)
