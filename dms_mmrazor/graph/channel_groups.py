"""Groups of channels that are kept or removed together."""

from typing import Any, Dict, Iterable, List, NamedTuple, Tuple

from torch import nn

from dms_mmrazor.layers import (
    HEADS,
    AttentionDim,
    acts_alone,
    is_depthwise,
    is_layer,
    is_weighted,
    kind_of,
    masked_form,
    named_parts,
)
from dms_mmrazor.layers.attention import attention_kind
from dms_mmrazor.layers.multihead import is_multihead

SINGLE = 'it has a single channel'
TIED_TO_INPUT = "its channels are (tied to) the model's input"
TIED_TO_OUTPUT = "its channels are (tied to) the model's output"

UNFOLLOWED = 'not followed: '
"""Before the reason, in the name of a node that stands for one."""


HEADS_KEY = 'heads'
"""Key of a config whose elements are heads of an attention."""

POSITIONS = 'positions of '
"""Before the name of a linear layer over the positions of each channel.

So a group knows whose MACs grow with its channels, without a layer to cut.
"""

TORN = 'torn'
"""Key of a config whose channels are not one set for each element."""


class ChannelGroup(NamedTuple):
    """Channels of several layers that can only be kept or removed together.

    Attributes:
        name (str): The layer that produces them first.
        config (dict): As mmrazor's ``ChannelUnit.init_from_cfg`` reads it.
        reason (str): Why the group is not searched; empty if it is.
    """

    name: str
    config: Dict[str, Any]
    reason: str

    @property
    def layers(self) -> List[Tuple[str, bool]]:
        """(layer, is output side) of all layers that the group touches."""
        channels = self.config['channels']
        sides = (('output_related', True), ('input_related', False))
        return [
            (channel['name'], is_output)
            for key, is_output in sides
            for channel in channels[key]
            if isinstance(channel['name'], str)
        ]


def all_channels(config: Dict[str, Any]) -> List[Dict[str, Any]]:
    """mmrazor's descriptions of all sides of a group."""
    channels = config['channels']
    return channels['output_related'] + channels['input_related']


def has_vectors(module: nn.Module) -> bool:
    """Whether a module has parameters of several numbers.

    One number, such as mmcv's ``Scale`` has, is the same for any channels.
    """
    return any(p.numel() > 1 for p in module.parameters())


def _is_plain(module: nn.Module) -> bool:
    """Whether a layer that needs no masks can be cut."""
    return is_layer(module) and acts_alone(module)


def _reason_of_layer(module: nn.Module) -> str:
    """Why a layer with vectors cannot be searched; empty if it can."""
    kind = kind_of(module)
    computed = kind is not None and any(
        key not in module._parameters for key in kind.weights
    )
    if computed and kind.mixes:
        return (
            'computes its weight from other parameters (weight_norm, '
            'spectral_norm or the like), not supported'
        )
    if masked_form(type(module)) is None and not _is_plain(module):
        return f'is a {type(module).__name__}, not supported'
    return '' if kind is None else kind.unsupported(module)


def reason_against(
    config: Dict[str, Any], modules: Dict[str, nn.Module]
) -> str:
    """Why a group of channels cannot be searched; empty if it can."""
    names = [str(channel['name']) for channel in all_channels(config)]
    if 'output_placeholder' in names:
        return TIED_TO_OUTPUT
    if 'input_placeholder' in names:
        return TIED_TO_INPUT
    for name in names:
        if name.startswith(UNFOLLOWED):
            return name[len(UNFOLLOWED) :]
        module = modules.get(name)
        if module is None or not has_vectors(module):
            continue
        reason = _reason_of_layer(module)
        if reason:
            return f'{name} {reason}'
    channels = config['channels']
    if not _mixing(channels['output_related'], modules):
        return 'no conv or linear layer produces its channels'
    if not _mixing(channels['input_related'], modules):
        return 'no conv or linear layer reads its channels'
    if config['init_args']['num_channels'] < 2:
        return SINGLE
    if config.get(TORN):
        first = _mixing(channels['output_related'], modules)[0]
        return f'channels of {first} are tied to one another'
    return ''


def _is_in_projection(
    channel: Dict[str, Any], modules: Dict[str, nn.Module]
) -> bool:
    """Whether channels are what torch's attention reads."""
    owner, _, key = str(channel['name']).rpartition('.')
    reads = key == 'in_proj_weight' and not channel['is_output_channel']
    return reads and is_multihead(modules.get(owner))


def _mixing(
    channels: List[Dict[str, Any]], modules: Dict[str, nn.Module]
) -> List[str]:
    """Layers of which each output depends on several input channels."""
    names = []
    for channel in channels:
        module = modules.get(str(channel['name']))
        if is_depthwise(module):
            continue
        if is_weighted(module) or _is_in_projection(channel, modules):
            names.append(channel['name'])
    return names


def groups_of(
    configs: Iterable[Dict[str, Any]], model: nn.Module
) -> List[ChannelGroup]:
    """Groups with a conv or linear layer, then those of all attentions.

    Args:
        configs (Iterable[dict]): What mmrazor's graph ties together.
        model (nn.Module): The model.

    Returns:
        list[ChannelGroup]: Named, with reasons.
    """
    modules = dict(model.named_modules())
    groups = []
    for config in configs:
        names = [str(channel['name']) for channel in all_channels(config)]
        touched = [modules[name] for name in names if name in modules]
        # Heads times head dims: these have groups of their own.
        inside = any(attention_kind(module) for module in touched)
        if any(is_weighted(module) for module in touched) and not inside:
            reason = reason_against(config, modules)
            groups.append(ChannelGroup('', config, reason))
    return _name_groups(groups, modules) + _attention_groups(model)


def _attention_groups(model: nn.Module) -> List[ChannelGroup]:
    """Heads, q/k dims and v dims of all attentions."""
    groups = []
    parts = named_parts(model)
    for name, part in parts.items():
        if not isinstance(part, AttentionDim):
            continue
        size = part.channels
        names = [name]
        if part.kind == HEADS:
            # Window attention has a table of position biases of each head.
            others = attention_kind(part.module).by_head
            found = [f'{name[: -len(HEADS)]}{other}' for other in others]
            names += [other for other in found if other in parts]
        channels = [
            dict(name=n, start=0, end=size, is_output_channel=True)
            for n in names
        ]
        config = _config(size, channels, [])
        kind = attention_kind(part.module)
        reason = kind.held(part.module, part.kind) if size > 1 else SINGLE
        groups.append(ChannelGroup(name, config, reason))
    return groups


def position_group(layer: str) -> ChannelGroup:
    """What a linear layer over positions reads and gives, for the report.

    Args:
        layer (str): Its name.
    """
    side = dict(name=layer, start=0, end=1)
    config = _config(
        1,
        [dict(side, is_output_channel=True)],
        [dict(side, is_output_channel=False)],
    )
    reason = 'it mixes the positions of each channel, not channels'
    return ChannelGroup(f'{POSITIONS}{layer}', config, reason)


def _config(
    size: int,
    outputs: List[Dict[str, Any]],
    inputs: List[Dict[str, Any]],
) -> Dict[str, Any]:
    """Sides that give and that read ``size`` channels, as mmrazor has it."""
    channels = dict(output_related=outputs, input_related=inputs)
    return dict(init_args=dict(num_channels=size), channels=channels)


def _name_groups(
    groups: List[ChannelGroup], modules: Dict[str, nn.Module]
) -> List[ChannelGroup]:
    """Name each group after the first layer that produces its channels."""
    named: Dict[str, ChannelGroup] = {}
    for group in groups:
        first = next(
            c for c in all_channels(group.config) if str(c['name']) in modules
        )
        name = first['name']
        if not first['is_output_channel']:
            name = f'input of {name}'
        if name in named:
            name = f'{name}[{first["start"]}:{first["end"]}]'
        while name in named:
            name += "'"
        named[name] = group._replace(name=name)
    return list(named.values())
