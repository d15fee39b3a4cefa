"""Everything in a model that can be narrowed, by its full name."""

from typing import Dict, Union

from torch import nn

from dms_mmrazor.layers.block import block_holders
from dms_mmrazor.layers.channel_holder import bare_parameters
from dms_mmrazor.layers.kind import ChannelHolder, is_layer

Part = Union[nn.Module, ChannelHolder]


def named_parts(model: nn.Module) -> Dict[str, Part]:
    """Modules, bare parameters, heads and head dims of a plain model.

    Args:
        model (nn.Module): A plain model.

    Returns:
        dict[str, nn.Module | ChannelHolder]: Full name → part.
    """
    held = block_holders(model)
    # What a block holds for itself takes the place of the block.
    modules = {**dict(model.named_modules()), **held}
    return {**bare_parameters(model), **held, **modules}


def can_narrow(part: object) -> bool:
    """Whether a part is a conv, linear or norm layer or a holder."""
    return isinstance(part, ChannelHolder) or is_layer(part)
