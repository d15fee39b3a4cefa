"""What each layer costs, read off one forward pass of the plain model.

MACs are multiply-accumulates of convolutions, linear layers and the two
products of attention for one image. Biases, normalization, activations and
pooling are not counted.
"""

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from torch import Tensor, nn

from dms_mmrazor.models.ops import (
    attention_macs,
    channels_of,
    is_attention,
    is_weighted,
)
from dms_mmrazor.models.ops.known_types import is_transposed
from dms_mmrazor.models.tracing.demo import (
    demo_tensor,
    evaluating,
    forward_tensors,
)


class LayerProfile(NamedTuple):
    """How often the weight of a layer is applied to one image.

    Attributes:
        name (str): Name of the layer in the model.
        positions (int): Applications of the kernel (feature positions,
            summed over all calls of a shared layer), per image. For an
            attention: pairs of tokens.
    """

    name: str
    positions: int


def kernel_macs(module: nn.Module) -> float:
    """MACs of one application of a layer's weight at full width."""
    if is_attention(module):
        return float(attention_macs(module))
    return float(module.weight.numel())


def profile_layers(
    model: nn.Module, input_size: Tuple[int, ...]
) -> List[LayerProfile]:
    """Positions of every conv, linear and attention layer that runs.

    Args:
        model (nn.Module): A model; its state is not changed.
        input_size (tuple): (B, C, H, W).

    Returns:
        list[LayerProfile]: In the order of their first call.
    """
    with evaluating(model), counting_positions(model, input_size[0]) as found:
        forward_tensors(model, demo_tensor(model, input_size))
    return as_profiles(found)


def as_profiles(positions: Dict[str, int]) -> List[LayerProfile]:
    """What :func:`counting_positions` found."""
    return [LayerProfile(name, count) for name, count in positions.items()]


@contextmanager
def counting_positions(
    model: nn.Module, batch: int
) -> Iterator[Dict[str, int]]:
    """Count what runs inside, for :func:`profile_layers`.

    Args:
        model (nn.Module): A model.
        batch (int): Images that it is given.

    Yields:
        dict[str, int]: Layer → positions per image, filled as it runs.
    """
    positions: Dict[str, int] = {}
    names = {module: name for name, module in model.named_modules()}

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if is_attention(module):
            applied = inputs[0].shape[0] * inputs[0].shape[1] ** 2
        elif is_transposed(module):
            applied = inputs[0].numel() // module.in_channels
        else:
            applied = output.numel() // channels_of(module, False)
        name = names[module]
        positions[name] = positions.get(name, 0) + applied // batch

    handles = [
        module.register_forward_hook(count)
        for module in names
        if is_weighted(module) or is_attention(module)
    ]
    try:
        yield positions
    finally:
        for handle in handles:
            handle.remove()


def count_macs(model: nn.Module, input_size: Tuple[int, ...]) -> int:
    """MACs of a plain model, counted on the model itself.

    Args:
        model (nn.Module): A plain model (an exported subnet, say).
        input_size (tuple): (B, C, H, W); the count is per image.
    """
    modules = dict(model.named_modules())
    return int(
        sum(
            layer.positions * kernel_macs(modules[layer.name])
            for layer in profile_layers(model, input_size)
        )
    )
