"""Groups of channels that are kept or removed together."""

from typing import Any, Dict, Iterable, List, NamedTuple, Tuple

from torch import nn
from torch.nn.utils import parametrize

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


POSITIONS = 'positions of '
"""Before the name of a linear layer over the positions of each channel.

So a group knows whose MACs grow with its channels, without a layer to cut.
"""


class Side(NamedTuple):
    """Channels ``start`` … ``end`` on one side of a part of the model.

    Attributes:
        name (str): Name of the part, or what a trace has in its place
            ('input_placeholder').
        start (int): The first of the channels.
        end (int): The one after the last.
        is_output (bool): Whether the part gives them.
    """

    name: str
    start: int
    end: int
    is_output: bool

    def overlaps(self, other: 'Side') -> bool:
        """Whether both share channels."""
        same = (self.name, self.is_output) == (other.name, other.is_output)
        return same and self.start < other.end and other.start < self.end


class ChannelGroup(NamedTuple):
    """Channels of several layers that can only be kept or removed together.

    Attributes:
        name (str): The layer that produces them first.
        size (int): Elements that are chosen one by one. A side with a
            multiple of as many channels repeats each of them.
        sides (tuple[Side, ...]): Who gives the channels, then who reads
            them.
        reason (str): Why the group is not searched. Defaults to '', it is.
        heads (bool): Whether the elements are declared to be heads of an
            attention. Defaults to False.
        torn (bool): Whether its channels are not one set for each element.
            Defaults to False.
    """

    name: str
    size: int
    sides: Tuple[Side, ...]
    reason: str = ''
    heads: bool = False
    torn: bool = False

    @property
    def layers(self) -> List[Tuple[str, bool]]:
        """(layer, is output side) of all layers that the group touches."""
        return [(side.name, side.is_output) for side in self.sides]

    @property
    def config(self) -> Dict[str, Any]:
        """As mmrazor's ``ChannelUnit.init_from_cfg`` reads it."""
        keys = ('name', 'start', 'end', 'is_output_channel')
        channels = {
            key: [dict(zip(keys, s)) for s in self.sides if s.is_output == out]
            for key, out in (
                ('input_related', False),
                ('output_related', True),
            )
        }
        return dict(init_args=dict(num_channels=self.size), channels=channels)


_REMOVED_BY = {
    'weight_g': '`torch.nn.utils.remove_weight_norm`',
    # It forgets a hook that asks each checkpoint for `weight_u`.
    'weight_u': (
        '`torch.nn.utils.remove_spectral_norm`, then '
        '`layer._load_state_dict_pre_hooks.clear()`'
    ),
    'weight_mask': '`torch.nn.utils.prune.remove`',
}
"""By what torch stores beside a weight that it computes: what undoes it."""


def has_vectors(module: nn.Module) -> bool:
    """Whether a module has parameters of several numbers.

    One number, such as mmcv's ``Scale`` has, is the same for any channels.
    """
    return any(p.numel() > 1 for p in module.parameters())


def _is_plain(module: nn.Module) -> bool:
    """Whether a layer that needs no masks can be cut."""
    return is_layer(module) and acts_alone(module)


def _plain_weight_by(module: nn.Module) -> str:
    """What makes the computed weight of a layer a plain one."""
    if parametrize.is_parametrized(module):
        return '`torch.nn.utils.parametrize.remove_parametrizations`'
    for key, call in _REMOVED_BY.items():
        if hasattr(module, key):
            return call
    return 'assign it as a parameter'


def _reason_of_layer(module: nn.Module) -> str:
    """Why a layer with vectors cannot be searched; empty if it can."""
    kind = kind_of(module)
    computed = kind is not None and any(
        key not in module._parameters for key in kind.weights
    )
    if computed and kind.mixes:
        return (
            'computes its weight from other parameters (weight_norm, '
            'spectral_norm or the like), not supported; to search it, make '
            f'the weight a plain one: {_plain_weight_by(module)}'
        )
    if masked_form(type(module)) is None and not _is_plain(module):
        return f'is a {type(module).__name__}, not supported'
    return '' if kind is None else kind.unsupported(module)


def reason_against(group: ChannelGroup, modules: Dict[str, nn.Module]) -> str:
    """Why a group of channels cannot be searched; empty if it can."""
    names = [side.name for side in group.sides]
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
    mixing = [side for side in group.sides if _mixes(side, modules)]
    given = [side.name for side in mixing if side.is_output]
    if not given:
        return 'no conv or linear layer produces its channels'
    if group.size < 2:
        return SINGLE
    if len(given) == len(mixing):
        return 'no conv or linear layer reads its channels'
    if group.torn:
        return f'channels of {given[0]} are tied to one another'
    return ''


def _mixes(side: Side, modules: Dict[str, nn.Module]) -> bool:
    """Whether each output of a layer depends on several input channels."""
    module = modules.get(side.name)
    if is_depthwise(module):
        return False
    return is_weighted(module) or _is_in_projection(side, modules)


def _is_in_projection(side: Side, modules: Dict[str, nn.Module]) -> bool:
    """Whether channels are what torch's attention reads."""
    owner, _, key = side.name.rpartition('.')
    reads = key == 'in_proj_weight' and not side.is_output
    return reads and is_multihead(modules.get(owner))


def groups_of(
    tied: Iterable[ChannelGroup], model: nn.Module
) -> List[ChannelGroup]:
    """Groups with a conv or linear layer, then those of all attentions.

    Args:
        tied (Iterable[ChannelGroup]): What mmrazor's graph ties together,
            without names and reasons.
        model (nn.Module): The model.

    Returns:
        list[ChannelGroup]: Named, with reasons.
    """
    modules = dict(model.named_modules())
    groups = []
    for group in tied:
        names = [side.name for side in group.sides]
        touched = [modules[name] for name in names if name in modules]
        # Heads times head dims: these have groups of their own.
        inside = any(attention_kind(module) for module in touched)
        if any(is_weighted(module) for module in touched) and not inside:
            reason = reason_against(group, modules)
            groups.append(group._replace(reason=reason))
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
        sides = tuple(Side(n, 0, size, True) for n in names)
        kind = attention_kind(part.module)
        reason = kind.held(part.module, part.kind) if size > 1 else SINGLE
        groups.append(ChannelGroup(name, size, sides, reason))
    return groups


def position_group(layer: str) -> ChannelGroup:
    """What a linear layer over positions reads and gives, for the report.

    Args:
        layer (str): Its name.
    """
    sides = tuple(Side(layer, 0, 1, is_output) for is_output in (True, False))
    reason = 'it mixes the positions of each channel, not channels'
    return ChannelGroup(f'{POSITIONS}{layer}', 1, sides, reason)


def _name_groups(
    groups: List[ChannelGroup], modules: Dict[str, nn.Module]
) -> List[ChannelGroup]:
    """Name each group after the first layer that produces its channels."""
    named: Dict[str, ChannelGroup] = {}
    for group in groups:
        first = next(side for side in group.sides if side.name in modules)
        name = first.name if first.is_output else f'input of {first.name}'
        # A split layer gives several groups, and users exclude them by name.
        if name in named:
            name = f'{name}[{first.start}:{first.end}]'
        while name in named:
            name += "'"
        named[name] = group._replace(name=name)
    return list(named.values())
