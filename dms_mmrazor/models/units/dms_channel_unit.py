"""The width of a group of coupled layers."""

import math
import random
from typing import Any, List, Optional, Union

from mmrazor.models.mutables import MutableChannelUnit
from mmrazor.models.mutables.mutable_channel.units.channel_unit import Channel
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.layers import (
    HEADS,
    AttentionDim,
    DMSOp,
    acts_alone,
    attach_attention,
    channels_of,
    is_layer,
    is_norm,
    is_weighted,
    kind_of,
    replace_with_dynamic,
)
from dms_mmrazor.layers.block import find_holder
from dms_mmrazor.layers.torch_blocks import InProjection
from dms_mmrazor.models.mutables import (
    DMSChannelContainer,
    DMSMutableChannel,
    ExpandedMutableChannel,
    TopkOperator,
)
from dms_mmrazor.registry import MODELS


@MODELS.register_module()
class DMSChannelUnit(MutableChannelUnit):
    """Coupled channels that one differentiable top-k chooses.

    Attributes:
        declared_heads (bool): Whether the elements are heads of an
            attention that the config or an adapter has declared.

    Args:
        num_channels (int): Number of channels N.
        step (int | float): Contiguous channels that share importance and
            mask (coarse spaces, appendix A.1.1), or their portion of N:
            1/6. Where it does not divide N, it is the greatest common
            divisor of both. Defaults to 1.
        min_ratio (float): Smallest kept ratio; at least one channel is
            always kept. Defaults to 0.
        max_ratio (float): Largest kept ratio. Defaults to 1.
        follows (str): Unit of whose kept portion this one keeps a portion:
            the width of an MLP relative to the sampled embedding
            (AutoFormer). ``step`` and the ratios then count what is kept
            beside a leader that keeps everything, and so do choices. A name
            with leading dots is relative, as in an import: each dot takes
            a part of the unit's own name away. Defaults to '', none.
        mask_step (int): Channels that share a mask in a unit that follows
            another. Defaults to 1.

    Raises:
        DMSError: If a ratio or the step is out of range, or there is
            another argument.
    """

    def __init__(
        self,
        num_channels: int,
        step: Union[int, float] = 1,
        min_ratio: float = 0.0,
        max_ratio: float = 1.0,
        follows: str = '',
        mask_step: int = 1,
        **kwargs: Any,
    ) -> None:
        if kwargs:  # mmrazor's units would ignore them
            raise DMSError(
                f'`channel_unit_cfg`: DMSChannelUnit has no setting '
                f'{sorted(kwargs)[0]!r}; it takes step, min_ratio, '
                'max_ratio, follows and mask_step.'
            )
        super().__init__(num_channels)
        step = _whole_step(step, num_channels)
        _check_settings(num_channels, mask_step, follows, min_ratio, max_ratio)
        if follows and step == 1:
            step = mask_step
        self.step = math.gcd(step, num_channels)
        self.follows = follows
        self.mask_step = mask_step if follows else self.step
        if self.step % self.mask_step:
            raise DMSError(
                f'`step` ({self.step}) must be a multiple of `mask_step` '
                f'({mask_step}).'
            )
        self.min_ratio = min_ratio
        self.max_ratio = max_ratio
        self.mutable_channel = DMSMutableChannel(num_channels)
        self._attention_dims: List[AttentionDim] = []
        self.declared_heads = False

    @property
    def min_kept(self) -> int:
        """Smallest number of channels, a multiple of ``step``."""
        wanted = math.ceil(self.min_ratio * self.num_channels - 1e-9)
        wanted = max(wanted, self._fewest_read())
        return math.ceil(wanted / self.step) * self.step

    def _fewest_read(self) -> int:
        """How many of its channels must be left for the layers' code."""
        layers = [channel.module for channel in self.input_related]
        fewest = [
            kind_of(layer).fewest_inputs(layer)
            for layer in layers
            if is_weighted(layer)
        ]
        return min(max(fewest, default=1), self.num_channels)

    @property
    def max_kept(self) -> int:
        """Largest number of channels, a multiple of ``step``."""
        steps = int(self.max_ratio * self.num_channels + 1e-9) // self.step
        return max(self.min_kept, steps * self.step)

    @property
    def leader_name(self) -> str:
        """Full name of the unit that this one follows; '' for none."""
        name = self.follows.lstrip('.')
        dots = len(self.follows) - len(name)
        if not dots:
            return name
        return '.'.join([*str(self.name).split('.')[:-dots], name])

    @property
    def attention_dim(self) -> Optional[AttentionDim]:
        """The heads or head dims that the unit chooses, if it does."""
        return self._attention_dims[0] if self._attention_dims else None

    @property
    def counts_heads(self) -> bool:
        """Whether the unit chooses heads of an attention."""
        return self.declared_heads or any(
            str(channel.name).endswith(f'.{HEADS}')
            for channel in self.output_related
        )

    @property
    def temperature(self) -> Optional[float]:
        """Temperature of the mask: 4N for few elements, else None, N."""
        if not self.counts_heads:
            return None
        return 4.0 * (self.num_channels // self.step)

    def divisor(self, divisor: int) -> int:
        """Step of exported widths: a multiple of ``step`` and ``divisor``.

        Numbers of heads need not be divisible, nor those of followers,
        which are not the widths of layers.
        """
        if self.counts_heads or self.follows:
            return self.step
        return self.step * divisor // math.gcd(self.step, divisor)

    def bind(self, operator: TopkOperator) -> None:
        """Let ``operator`` choose the channels."""
        self.mutable_channel.name = self.name
        self.mutable_channel.operator = operator

    def prepare_for_pruning(self, model: nn.Module) -> None:
        """Make the unit's layers read this unit's masks."""
        for channel in self.layer_channels(model):
            layer = replace_with_dynamic(model, channel.name)
            channel.module = layer
            attr = (
                'out_channels' if channel.is_output_channel else 'in_channels'
            )
            self._register(layer, attr, channel.start, channel.end)
        for channel in self.output_related:
            name = str(channel.name)
            holder = find_holder(model, name)
            if isinstance(holder, AttentionDim):
                module = attach_attention(model, name, self.mutable_channel)
                dim = AttentionDim(module, holder.kind)
                self._attention_dims.append(dim)
            elif isinstance(holder, InProjection):
                owner = name.rpartition('.')[0]
                layer = replace_with_dynamic(model, owner)
                self._register(
                    layer, 'in_channels', channel.start, channel.end
                )

    @property
    def layers(self) -> List[nn.Module]:
        """Layers of the supernet that the unit refers to."""
        channels = [*self.output_related, *self.input_related]
        found = [channel.module for channel in channels]
        found += [dim.module for dim in self._attention_dims]
        return [layer for layer in found if isinstance(layer, nn.Module)]

    def layer_channels(self, model: nn.Module) -> List[Channel]:
        """The unit's channels that belong to layers with masks.

        A norm has the same channels on both sides and is listed once; what
        treats every channel alone needs no mask.
        """
        modules = dict(model.named_modules())
        channels = []
        for channel in [*self.output_related, *self.input_related]:
            module = modules.get(channel.name)
            if not is_layer(module) or acts_alone(module):
                continue
            if is_norm(module) and channel.is_output_channel:
                continue
            channels.append(channel)
        return channels

    def _register(self, layer: DMSOp, attr: str, start: int, end: int) -> None:
        container = layer.get_mutable_attr(attr)
        if container is None:
            size = channels_of(layer, attr == 'in_channels')
            container = DMSChannelContainer(size)
            layer.register_mutable_attr(attr, container)
        ratio, rest = divmod(end - start, self.num_channels)
        if rest:
            raise DMSError(
                f'{end - start} channels of a layer in unit {self.name} '
                f'cannot be tied to its {self.num_channels} channels.'
            )
        mutable = self.mutable_channel
        if ratio > 1:
            mutable = ExpandedMutableChannel(mutable, ratio)
        container.register_mutable(mutable, start, end)

    @property
    def current_choice(self) -> int:
        """Number of kept channels."""
        return self.mutable_channel.current_choice

    @current_choice.setter
    def current_choice(self, choice: Union[int, float]) -> None:
        self.mutable_channel.current_choice = choice

    def sample_choice(self) -> int:
        """A random number of channels within the limits."""
        low, high = self.min_kept // self.step, self.max_kept // self.step
        return random.randint(low, high) * self.step


def _whole_step(step: Union[int, float], num_channels: int) -> int:
    """A step in channels, of which a portion may have been given.

    Raises:
        DMSError: If the unit has no such step.
    """
    if isinstance(step, float) and 0 < step < 1:
        step = max(1, round(step * num_channels))
    if not (type(step) is int and 1 <= step <= num_channels):
        raise DMSError(
            f'`step` must be an int in 1 … {num_channels} (the channels '
            f'of the unit) or a portion of them in (0, 1), got {step!r}.'
        )
    return step


def _check_settings(
    num_channels: int,
    mask_step: int,
    follows: str,
    min_ratio: float,
    max_ratio: float,
) -> None:
    """Raise DMSError unless the settings of a unit fit together."""
    if not (isinstance(mask_step, int) and num_channels % mask_step == 0):
        raise DMSError(
            f'`mask_step` must divide the {num_channels} channels of the '
            f'unit, got {mask_step!r}.'
        )
    if mask_step > 1 and not follows:
        raise DMSError(
            '`mask_step` is for units with `follows`; others have `step`.'
        )
    for key, ratio in (('min_ratio', min_ratio), ('max_ratio', max_ratio)):
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)):
            raise DMSError(
                f'`{key}` must be a number in [0, 1], got {ratio!r}.'
            )
    if not 0 <= min_ratio <= max_ratio <= 1 or max_ratio == 0:
        raise DMSError(
            '`min_ratio` and `max_ratio` must satisfy 0 <= min <= max <= '
            f'1, got {min_ratio} and {max_ratio}.'
        )
