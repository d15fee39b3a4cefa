"""What each layer costs, read off one forward pass of the plain model.

MACs are multiply-accumulates of convolutions, linear layers and the two
products of attention for one image. Biases, normalization, activations and
pooling are not counted.
"""

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

from torch import Tensor, nn

from dms_mmrazor.graph.demo import (
    DemoInput,
    batch_of,
    demo_tensor,
    evaluating,
    forward_tensors,
)
from dms_mmrazor.layers import (
    attention_macs,
    is_attention,
    is_weighted,
    kind_of,
)
from dms_mmrazor.layers.decoders import (
    decoder_attention_macs,
    is_decoder_attention,
)
from dms_mmrazor.layers.multihead import (
    KEYS_VALUES,
    QUERIES,
    is_multihead,
    projected_tokens,
    projection_macs,
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
    if is_decoder_attention(module):
        return float(decoder_attention_macs(module))
    return kind_of(module).macs(module)


def profile_layers(
    model: nn.Module, input_size: DemoInput
) -> List[LayerProfile]:
    """Positions of every conv, linear and attention layer that runs.

    Args:
        model (nn.Module): A model; its state is not changed.
        input_size (tuple | ExampleInputs): (B, C, H, W), or what it is
            called with.

    Returns:
        list[LayerProfile]: In the order of their first call.
    """
    batch = batch_of(input_size)
    with evaluating(model), counting_positions(model, batch) as found:
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

    def add(name: str, applied: int) -> None:
        positions[name] = positions.get(name, 0) + applied // batch

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        if is_attention(module):
            applied = inputs[0].shape[0] * inputs[0].shape[1] ** 2
        elif is_decoder_attention(module):
            # Its input is a keyword; the first output has the same shape.
            applied = output[0].shape[0] * output[0].shape[1] ** 2
        else:
            applied = kind_of(module).positions(module, inputs, output)
        add(names[module], applied)

    def count_multihead(module: nn.Module, query: Tensor, key: Tensor) -> None:
        asking, asked, pairs = projected_tokens(module, query, key)
        name = names[module]
        add(f'{name}.{QUERIES}', asking)
        add(f'{name}.{KEYS_VALUES}', asked)
        add(name, pairs)
        add(f'{name}.out_proj', asking)

    multiheads = [module for module in names if is_multihead(module)]
    handles = [
        module.register_forward_hook(count)
        for module in names
        if (
            is_weighted(module)
            or is_attention(module)
            or is_decoder_attention(module)
        )
        and module not in multiheads
    ]
    for module in multiheads:
        # A hook would not see arguments that are given by name.
        module.forward = _Observed(module, count_multihead)
    try:
        yield positions
    finally:
        for handle in handles:
            handle.remove()
        for module in multiheads:
            del module.forward


class _Observed:
    """The forward of an attention, which tells what it is given.

    Args:
        module (nn.Module): An ``nn.MultiheadAttention``.
        tell (Callable): Takes the module, query and key.
    """

    def __init__(self, module: nn.Module, tell: Callable[..., None]) -> None:
        self.module = module
        self.tell = tell

    def __call__(
        self, query: Tensor, key: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        self.tell(self.module, query, key)
        return type(self.module).forward(
            self.module, query, key, *args, **kwargs
        )


def count_macs(model: nn.Module, input_size: DemoInput) -> int:
    """MACs of a plain model, counted on the model itself.

    Args:
        model (nn.Module): A plain model (an exported subnet, say).
        input_size (tuple | ExampleInputs): (B, C, H, W), or what it is
            called with; the count is per image.
    """
    return int(
        sum(
            layer.positions * layer_macs(model, layer.name)
            for layer in profile_layers(model, input_size)
        )
    )


def layer_macs(model: nn.Module, name: str) -> float:
    """MACs of one application of what a profile names, at full width."""
    owner, _, part = name.rpartition('.')
    if part in (QUERIES, KEYS_VALUES):
        return float(projection_macs(model.get_submodule(owner), part))
    return kernel_macs(model.get_submodule(name))
