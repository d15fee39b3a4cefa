"""Keep some channels of a plain layer."""

from typing import Optional, Tuple, Union

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.ops.channel_holder import ChannelHolder
from dms_mmrazor.models.ops.known_types import (
    GRN,
    TIMM_GRN,
    groups_of_norm,
    is_conv,
    is_kind,
    is_rms_norm,
    is_transposed,
)

Indices = Optional[Tensor]


def channels_of(
    module: Union[nn.Module, ChannelHolder], is_input: bool
) -> int:
    """Number of channels on one side of a layer."""
    if isinstance(module, ChannelHolder):
        return module.channels
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[-1]
    if is_kind(module, TIMM_GRN):
        return len(module.weight)
    if is_kind(module, GRN):
        return module.in_channels
    if is_rms_norm(module):
        return module.weight.shape[0]
    if isinstance(module, (_BatchNorm, _InstanceNorm)):
        return module.num_features
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    if isinstance(module, nn.PReLU):
        return module.num_parameters
    if isinstance(module, nn.Linear):
        return module.in_features if is_input else module.out_features
    if isinstance(module, nn.MultiheadAttention):  # its input projection
        return module.in_proj_weight.shape[int(is_input)]
    return module.in_channels if is_input else module.out_channels


def narrow_layer(
    layer: Union[nn.Module, ChannelHolder],
    out_kept: Indices,
    in_kept: Indices,
) -> Union[nn.Module, ChannelHolder]:
    """Keep some channels of a conv, linear or norm layer, in place.

    Args:
        layer (nn.Module | ChannelHolder): A plain layer, or something else
            with channels.
        out_kept (Tensor, optional): Output channels to keep. Defaults to
            all.
        in_kept (Tensor, optional): Input channels to keep. Defaults to all.

    Raises:
        DMSError: If the type is not supported, or the groups of a
            convolution would become unequal.
    """
    one_side = out_kept if in_kept is None else in_kept
    if isinstance(layer, ChannelHolder):
        layer.narrow(one_side)
    elif isinstance(layer, (_BatchNorm, _InstanceNorm)):
        _narrow_batch_norm(layer, one_side)
    elif isinstance(layer, nn.GroupNorm):
        _narrow_group_norm(layer, one_side)
    elif isinstance(layer, nn.PReLU):
        layer.weight = _select(layer.weight, 0, one_side)
        layer.num_parameters = len(layer.weight)
    elif isinstance(layer, nn.LayerNorm):
        _narrow_layer_norm(layer, one_side)
    elif is_kind(layer, TIMM_GRN):
        layer.weight = _select(layer.weight, 0, one_side)
        layer.bias = _select(layer.bias, 0, one_side)
    elif is_kind(layer, GRN):
        _narrow_grn(layer, one_side)
    elif is_rms_norm(layer):
        layer.weight = _select(layer.weight, 0, one_side)
    elif isinstance(layer, nn.Linear):
        _narrow_linear(layer, out_kept, in_kept)
    elif isinstance(layer, nn.MultiheadAttention):
        weight = _select(layer.in_proj_weight, 0, out_kept)
        layer.in_proj_weight = _select(weight, 1, in_kept)
        layer.in_proj_bias = _select(layer.in_proj_bias, 0, out_kept)
    elif is_conv(layer):
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


def _narrow_batch_norm(
    layer: Union[_BatchNorm, _InstanceNorm], kept: Indices
) -> None:
    if kept is None:
        return
    layer.num_features = len(kept)
    layer.weight = _select(layer.weight, 0, kept)
    layer.bias = _select(layer.bias, 0, kept)
    layer.running_mean = _select(layer.running_mean, 0, kept)
    layer.running_var = _select(layer.running_var, 0, kept)


def _narrow_group_norm(layer: nn.GroupNorm, kept: Indices) -> None:
    if kept is None:
        return
    groups = groups_of_norm(layer)
    if groups:
        sizes = _by_group(layer.num_channels, groups, kept).sum(dim=1)
        whole = layer.num_channels // groups
        if set(sizes.tolist()) - {0, whole}:
            raise DMSError(
                'a group norm keeps or loses whole groups, here '
                f'{sorted(set(sizes.tolist()))} of {whole} channels.'
            )
        layer.num_groups = int((sizes > 0).sum())
    layer.num_channels = len(kept)
    layer.weight = _select(layer.weight, 0, kept)
    layer.bias = _select(layer.bias, 0, kept)


def _narrow_layer_norm(layer: nn.LayerNorm, kept: Indices) -> None:
    if kept is None:
        return
    layer.normalized_shape = (len(kept),)
    layer.weight = _select(layer.weight, 0, kept)
    layer.bias = _select(layer.bias, 0, kept)
    if hasattr(layer, 'num_channels'):
        layer.num_channels = len(kept)


def _narrow_grn(layer: nn.Module, kept: Indices) -> None:
    if kept is None:
        return
    layer.in_channels = len(kept)
    layer.gamma = _select(layer.gamma, 0, kept)
    layer.beta = _select(layer.beta, 0, kept)


def _narrow_linear(
    layer: nn.Linear, out_kept: Indices, in_kept: Indices
) -> None:
    layer.weight = _select(_select(layer.weight, 0, out_kept), 1, in_kept)
    layer.bias = _select(layer.bias, 0, out_kept)
    layer.out_features, layer.in_features = layer.weight.shape


def _narrow_conv(layer: _ConvNd, out_kept: Indices, in_kept: Indices) -> None:
    if layer.groups == 1:
        sides = (out_kept, in_kept)
        dims = (1, 0) if is_transposed(layer) else (0, 1)
        for dim, kept in zip(dims, sides):
            layer.weight = _select(layer.weight, dim, kept)
        layer.out_channels, layer.in_channels = (
            layer.weight.shape[dim] for dim in dims
        )
    else:
        weight, groups = _grouped_weight(layer, out_kept, in_kept)
        layer.groups = groups
        layer.out_channels = weight.shape[0]
        layer.in_channels = weight.shape[1] * groups
        if is_transposed(layer):
            weight = swap_sides(weight, groups)
        trains = layer.weight.requires_grad
        layer.weight = nn.Parameter(weight, requires_grad=trains)
    layer.bias = _select(layer.bias, 0, out_kept)


def weight_by_outputs(layer: nn.Module) -> Tensor:
    """The weight of a conv or linear layer as [out, in / groups, ...].

    That of an ``nn.MultiheadAttention`` is its input projection's.
    """
    if isinstance(layer, nn.MultiheadAttention):
        return layer.in_proj_weight
    if is_transposed(layer):
        return swap_sides(layer.weight, layer.groups)
    return layer.weight


def swap_sides(weight: Tensor, groups: int) -> Tensor:
    """[in, out / groups, ...] as [out, in / groups, ...], or back."""
    first, second, *kernel = weight.shape
    parts = weight.reshape(groups, first // groups, second, *kernel)
    return parts.transpose(1, 2).reshape(
        groups * second, first // groups, *kernel
    )


def _grouped_weight(
    layer: _ConvNd, out_kept: Indices, in_kept: Indices
) -> Tuple[Tensor, int]:
    """Kept [out, in / groups, ...] of a grouped one, and its groups."""
    outs = _by_group(layer.out_channels, layer.groups, out_kept)
    ins = _by_group(layer.in_channels, layer.groups, in_kept)
    sizes = torch.stack([outs.sum(dim=1), ins.sum(dim=1)], dim=1)
    unlike = (sizes[:, 0] == 0) != (sizes[:, 1] == 0)
    if in_kept is not None and unlike.any():
        group = int(unlike.nonzero()[0])
        raise DMSError(
            f'a grouped convolution would keep {int(sizes[group, 0])} outputs '
            f'and {int(sizes[group, 1])} inputs of group {group}.'
        )
    left = (sizes > 0).all(dim=1)
    kinds = sorted(set(map(tuple, sizes[left].tolist())))
    if len(kinds) != 1:
        raise DMSError(
            'the groups of a convolution would become unequal (outputs, '
            f'inputs): {kinds}.'
        )
    ((per_out, per_in),) = kinds
    weight = weight_by_outputs(layer).detach()
    rows = (outs & left[:, None]).flatten().nonzero().flatten()
    columns = ins[left].nonzero()[:, 1].view(-1, 1, per_in)
    columns = columns.expand(-1, per_out, -1).reshape(-1, per_in)
    index = columns.view(*columns.shape, *[1] * (weight.dim() - 2))
    index = index.expand(-1, -1, *weight.shape[2:]).to(weight.device)
    kept = weight.index_select(0, rows.to(weight.device)).gather(1, index)
    return kept, int(left.sum())


def _by_group(channels: int, groups: int, kept: Indices) -> Tensor:
    """Which channels of each group are kept: bool [G, channels / G]."""
    mask = torch.ones(channels, dtype=torch.bool)
    if kept is not None:
        mask.zero_()
        mask[kept.cpu()] = True
    return mask.view(groups, -1)
