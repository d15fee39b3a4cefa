"""All parts of a model that have channels; bare parameters and the like.

A layer scale, a class token or a position embedding is a parameter of a
block, multiplied or added along the channels. It is narrowed with the unit
of those channels, under its own name (``backbone.stages.0.0.gamma``).
"""

from typing import Dict, Union

from torch import Tensor, nn

from dms_mmrazor.layers.block import block_holders
from dms_mmrazor.layers.kind import ChannelHolder, is_layer


class BareParameter(ChannelHolder):
    """A parameter or buffer with channels in one dimension.

    Args:
        owner (nn.Module): The module that it belongs to.
        key (str): Its name there.
    """

    def __init__(self, owner: nn.Module, key: str) -> None:
        self.owner = owner
        self.key = key

    @property
    def channels(self) -> int:
        """Number of channels."""
        parameter = getattr(self.owner, self.key)
        return parameter.shape[channel_dim(parameter)]

    def narrow(self, kept: Tensor) -> None:
        """Keep some channels, in place."""
        old = getattr(self.owner, self.key)
        data = old.detach().index_select(channel_dim(old), kept.to(old.device))
        if isinstance(old, nn.Parameter):
            data = nn.Parameter(data, requires_grad=old.requires_grad)
        setattr(self.owner, self.key, data)


class ChannelCount(ChannelHolder):
    """A number of channels that a module without weights keeps.

    Args:
        owner (nn.Module): The module.
        key (str): Name of the number there.
    """

    def __init__(self, owner: nn.Module, key: str) -> None:
        self.owner = owner
        self.key = key

    @property
    def channels(self) -> int:
        """Number of channels."""
        return getattr(self.owner, self.key)

    def narrow(self, kept: Tensor) -> None:
        """Keep some channels, in place."""
        setattr(self.owner, self.key, len(kept))


def channel_dim(parameter: Tensor) -> int:
    """The only dimension with several entries, else the last one.

    Of an embedding of the positions of square maps, [1, C, H, W], the
    second one.
    """
    long = [dim for dim, size in enumerate(parameter.shape) if size > 1]
    if len(long) == 1:
        return long[0]
    if parameter.dim() == 4 and parameter.shape[0] == 1:
        channels, height, width = parameter.shape[1:]
        if height == width != channels:
            return 1
    return parameter.dim() - 1


def is_vector(tensor: Tensor) -> bool:
    """Whether a tensor of real numbers has several in one dimension alone.

    Such a buffer is taken for one number for each channel.
    """
    return tensor.is_floating_point() and tensor.numel() in (
        size for size in tensor.shape if size > 1
    )


def bare_parameters(model: nn.Module) -> Dict[str, ChannelHolder]:
    """All parameters and vectors that belong to no conv, linear or norm.

    The statistics of a frozen norm are buffers.

    Args:
        model (nn.Module): A plain model.

    Returns:
        dict[str, ChannelHolder]: Full name → holder.
    """
    return {
        f'{name}.{key}' if name else key: BareParameter(module, key)
        for name, module in model.named_modules()
        if not is_layer(module)
        for key, tensor in {**module._parameters, **module._buffers}.items()
        if tensor is not None
        and tensor.dim() > 0
        and (key in module._parameters or is_vector(tensor))
    }


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
