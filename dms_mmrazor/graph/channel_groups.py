"""Groups of channels that are kept or removed together."""

from typing import Any, Dict, List, NamedTuple, Tuple

from torch import nn

from dms_mmrazor.layers import (
    acts_alone,
    is_depthwise,
    is_layer,
    is_weighted,
    kind_of,
    masked_form,
)
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
