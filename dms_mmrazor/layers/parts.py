"""Everything in a model that can be narrowed, by its full name."""

from typing import Dict, Union

from torch import nn

from dms_mmrazor.layers.attention import attention_dims
from dms_mmrazor.layers.channel_holder import (
    bare_parameters,
    channel_counts,
)
from dms_mmrazor.layers.kind import ChannelHolder, is_layer
from dms_mmrazor.layers.multihead import in_projections

Part = Union[nn.Module, ChannelHolder]


def named_parts(model: nn.Module) -> Dict[str, Part]:
    """Modules, bare parameters, heads and head dims of a plain model.

    Args:
        model (nn.Module): A plain model.

    Returns:
        dict[str, nn.Module | ChannelHolder]: Full name → part.
    """
    return {
        **bare_parameters(model),
        **in_projections(model),
        **attention_dims(model),
        **dict(model.named_modules()),
        **channel_counts(model),
    }


def can_narrow(part: object) -> bool:
    """Whether a part is a conv, linear or norm layer or a holder."""
    return isinstance(part, ChannelHolder) or is_layer(part)
