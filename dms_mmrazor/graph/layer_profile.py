"""What each layer costs, read off the first pass of the plain model.

MACs are multiply-accumulates of convolutions, linear layers and the two
products of attention for one image. Biases, normalization, activations and
pooling are not counted; what a model multiplies outside of layers is told to
the user.
"""

from contextlib import contextmanager
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Sequence,
)

from torch import nn

from dms_mmrazor.graph.demo import (
    DemoInput,
    batch_of,
    demo_tensor,
    evaluating,
    forward_tensors,
    one_of,
)
from dms_mmrazor.graph.running import (
    ForwardError,
    check_demo_input,
    intercepting,
    naming_modules,
    removing,
)
from dms_mmrazor.layers import is_weighted, kind_of
from dms_mmrazor.layers.block import (
    block_kind_of,
    find_multiplier,
    multiplies,
)
from dms_mmrazor.layers.kind import Call

try:
    from torch.utils.flop_counter import FlopCounterMode
except ImportError:  # torch < 2.1
    FlopCounterMode = None


class LayerProfile(NamedTuple):
    """How often the weight of a layer is applied to one image.

    Attributes:
        name (str): Name of the layer in the model.
        positions (float): Applications of the kernel (feature positions,
            summed over all calls of a shared layer), per image. For an
            attention: pairs of tokens.
    """

    name: str
    positions: float


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
    with counting_positions(model) as found:
        _run(model, input_size)
    return _per_example(model, input_size, found)


def _run(model: nn.Module, input_size: DemoInput) -> None:
    with evaluating(model):
        forward_tensors(model, demo_tensor(model, input_size))


def _per_example(
    model: nn.Module, input_size: DemoInput, counted: Mapping[str, int]
) -> List[LayerProfile]:
    """What a whole batch was counted to, for one example of it.

    A layer that runs once however many examples there are (a table of
    positions, weights that another layer gives) costs one of them as much
    as all of them. A model that does not run on a single one is taken to
    have no such layers.

    Args:
        model (nn.Module): The model.
        input_size (tuple | ExampleInputs): What it was counted on.
        counted (dict[str, int]): Of :func:`counting_positions`.
    """
    batch, alone = batch_of(input_size), {}
    if batch > 1:
        try:
            with naming_modules(model), counting_positions(model) as alone:
                _run(model, one_of(input_size))
        except ForwardError:
            alone = {}
    return [
        LayerProfile(
            name, count if alone.get(name) == count else count / batch
        )
        for name, count in counted.items()
    ]


@contextmanager
def counting_positions(model: nn.Module) -> Iterator[Dict[str, int]]:
    """Count what runs inside, for :func:`profile_layers`.

    Args:
        model (nn.Module): A model.

    Yields:
        dict[str, int]: Layer → positions of all that it is given, filled as
        it runs.
    """
    positions: Dict[str, int] = {}
    names = {module: name for name, module in model.named_modules()}

    def add(name: str, applied: int) -> None:
        positions[name] = positions.get(name, 0) + applied

    def observe(
        module: nn.Module, forward: Callable[..., Any], *args: Any, **kw: Any
    ) -> Any:
        output = forward(*args, **kw)
        name, call = names[module], Call(args, kw, output)
        if is_weighted(module):
            add(name, kind_of(module).positions(module, call))
        if multiplies(module):
            parts = block_kind_of(module).positions(module, call)
            for part, applied in parts.items():
                add(f'{name}.{part}' if part else name, applied)
        return output

    counted = [m for m in names if is_weighted(m) or multiplies(m)]
    # Not by hooks, which do not see keyword arguments (torch < 2).
    with intercepting(counted, observe):
        yield positions


def count_macs(model: nn.Module, input_size: DemoInput) -> int:
    """MACs of a plain model, counted on the model itself.

    Args:
        model (nn.Module): A plain model (an exported subnet, say).
        input_size (tuple | ExampleInputs): (B, C, H, W), or what it is
            called with; the count is per image.
    """
    return int(sum(macs_by_layer(model, profile_layers(model, input_size))))


def macs_by_layer(
    model: nn.Module, layers: Sequence[LayerProfile]
) -> List[float]:
    """MACs of each layer of a plain model, for one image.

    Args:
        model (nn.Module): A plain model.
        layers (Sequence[LayerProfile]): Of :func:`profile_layers`.
    """
    modules = dict(model.named_modules())
    return [
        layer.positions * _layer_macs(modules, layer.name) for layer in layers
    ]


def _layer_macs(modules: Mapping[str, nn.Module], name: str) -> float:
    """MACs of one application of what a profile names, at full width."""
    block = find_multiplier(modules, name)
    if block is not None:
        return block.kind.macs(modules[block.name], block.part)
    return kind_of(modules[name]).macs(modules[name])


@contextmanager
def counting_elsewhere(
    model: nn.Module, batch: int
) -> Iterator[Dict[str, float]]:
    """Count products inside that no layer makes whose MACs are counted.

    A model may multiply without a layer: attention of its own, or
    ``functional.linear`` with a weight of its own.

    Args:
        model (nn.Module): A plain model.
        batch (int): Images that it is given.

    Yields:
        dict[str, float]: Name of a module → MACs per image of its own code,
        those of its submodules left out, filled as it runs; empty with torch
        < 2.1, which has no counter of operators.
    """
    found: Dict[str, float] = {}
    if FlopCounterMode is None:
        yield found
        return
    names = {module: name for name, module in model.named_modules()}
    counted = {
        part
        for module in names
        if is_weighted(module) or multiplies(module)
        for part in module.modules()
    }
    # Of each module that runs: the count at its start, that of submodules.
    running: List[List[int]] = [[0, 0]]
    counter = FlopCounterMode(display=False)

    def begin(module: nn.Module, inputs: Any) -> None:
        running.append([counter.get_total_flops(), 0])

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        start, inside = running.pop()
        whole = counter.get_total_flops() - start
        running[-1][1] += whole
        if whole > inside and module not in counted:
            macs = (whole - inside) / 2 / batch
            found[names[module]] = found.get(names[module], 0.0) + macs

    hooks = [m.register_forward_pre_hook(begin) for m in names]
    hooks += [m.register_forward_hook(end) for m in names]
    # The counter waits for gradients of what asks for some, and fails for
    # views of parameters, which have none here.
    with removing(hooks), _untrained(model), counter:
        yield found


@contextmanager
def _untrained(model: nn.Module) -> Iterator[None]:
    """Let no parameter of a model ask for a gradient inside."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def uncounted_warning(
    uncounted: Mapping[str, float], counted: float, model: str = 'the model'
) -> str:
    """What to tell a user about MACs that are not counted.

    Args:
        uncounted (dict[str, float]): From :func:`counting_elsewhere`.
        counted (float): MACs of all counted layers.
        model (str): What the model itself is called. Defaults to 'the
            model'.

    Returns:
        str: One line; empty if less than 1 % is missing.
    """
    missing = sum(uncounted.values())
    if missing <= 0.01 * (counted + missing):
        return ''
    names = sorted(uncounted, key=lambda name: (-uncounted[name], name))
    shown = ', '.join(f'`{name or model}`' for name in names[:3])
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    return (
        f'{missing / (counted + missing):.1%} of the MACs are not counted: '
        f'{shown}{more} multiply outside of convolutions, linear layers and '
        'known attentions. Targets in MACs are about the other '
        f'{counted / 1e9:.4g}G.'
    )


class FirstRun(NamedTuple):
    """What is known of a model once it ran on the demo input.

    Attributes:
        layers (list[LayerProfile]): From :func:`profile_layers`.
        uncounted (dict[str, float]): From :func:`counting_elsewhere`.
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
    with counting_positions(model) as positions:
        with counting_elsewhere(model, batch) as uncounted:
            check_demo_input(model, input_size, key)
    layers = _per_example(model, input_size, positions)
    return FirstRun(layers, uncounted)
