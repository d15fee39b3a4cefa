"""What each layer costs, read off the first pass of the plain model.

MACs are multiply-accumulates of convolutions, linear layers and the two
products of attention for one image. Biases, normalization, activations and
pooling are not counted.
"""

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple

from torch import nn

from dms_mmrazor.graph.demo import (
    DemoInput,
    batch_of,
    demo_tensor,
    evaluating,
    forward_tensors,
)
from dms_mmrazor.graph.running import check_demo_input
from dms_mmrazor.graph.uncounted import counting_elsewhere
from dms_mmrazor.layers import is_weighted, kind_of
from dms_mmrazor.layers.block import (
    block_kind_of,
    find_multiplier,
    multiplies,
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
        applied = kind_of(module).positions(module, inputs, output)
        add(names[module], applied)

    blocks = [module for module in names if multiplies(module)]
    observed = [_Observed(module, names[module], add) for module in blocks]
    handles = [
        module.register_forward_hook(count)
        for module in names
        if is_weighted(module)
    ]
    try:
        for block in observed:
            block.begin()
        yield positions
    finally:
        for handle in handles:
            handle.remove()
        for block in observed:
            block.end()


class _Observed:
    """The forward of a block, which tells what it is given.

    A hook would not see arguments that are given by name (torch < 2).

    Args:
        module (nn.Module): A block that multiplies.
        name (str): Its full name.
        add (Callable): Takes a name and how often it is applied.
    """

    def __init__(
        self, module: nn.Module, name: str, add: Callable[[str, int], None]
    ) -> None:
        self.module = module
        self.name = name
        self.add = add
        self.forward = module.forward
        self.own = module.__dict__.get('forward')

    def begin(self) -> None:
        """Stand in for the module's forward."""
        self.module.forward = self

    def end(self) -> None:
        """Leave the module as it was."""
        if self.own is None:
            del self.module.forward
        else:
            self.module.forward = self.own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self.forward(*args, **kwargs)
        kind = block_kind_of(self.module)
        applied = kind.positions(self.module, args, kwargs, output)
        for part, number in applied.items():
            self.add(f'{self.name}.{part}' if part else self.name, number)
        return output


def count_macs(model: nn.Module, input_size: DemoInput) -> int:
    """MACs of a plain model, counted on the model itself.

    Args:
        model (nn.Module): A plain model (an exported subnet, say).
        input_size (tuple | ExampleInputs): (B, C, H, W), or what it is
            called with; the count is per image.
    """
    modules = dict(model.named_modules())
    return int(
        sum(
            layer.positions * _layer_macs(modules, layer.name)
            for layer in profile_layers(model, input_size)
        )
    )


def _layer_macs(modules: Mapping[str, nn.Module], name: str) -> float:
    """MACs of one application of what a profile names, at full width."""
    block = find_multiplier(modules, name)
    if block is not None:
        return block.kind.macs(modules[block.name], block.part)
    return kind_of(modules[name]).macs(modules[name])


class FirstRun(NamedTuple):
    """What is known of a model once it ran on the demo input.

    Attributes:
        layers (list[LayerProfile]): From :func:`profile_layers`.
        uncounted (dict[str, float]): From :func:`uncounted_macs`.
    """

    layers: List[LayerProfile]
    uncounted: Dict[str, float]


def run_first(
    model: nn.Module,
    input_size: DemoInput,
    key: str = 'mutator.parse_cfg.demo_input',
) -> FirstRun:
    """Run a model on the demo input and count on the way.

    Args:
        model (nn.Module): A plain model; its state is not changed.
        input_size (tuple | ExampleInputs): (B, C, H, W), or what it is
            called with.
        key (str): Where the user has set it, for messages. Defaults to
            'mutator.parse_cfg.demo_input'.

    Raises:
        DMSError: If it does not run on an input of that shape.
    """
    batch = batch_of(input_size)
    with counting_positions(model, batch) as positions:
        with counting_elsewhere(model, batch) as uncounted:
            check_demo_input(model, input_size, key)
    return FirstRun(as_profiles(positions), uncounted)
