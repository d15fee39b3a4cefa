"""Time models that take turns, as a whole and layer by layer."""

import platform
import statistics
import time
from contextlib import contextmanager, nullcontext
from typing import (
    Any,
    ContextManager,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import torch
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.demo import demo_tensor, forward_tensors
from dms_mmrazor.graph.running import removing
from dms_mmrazor.layers import is_weighted, kind_of


class Clock:
    """Reads the time of a device; of a GPU by events on its stream.

    Args:
        device (torch.device): 'cpu' or 'cuda'.
    """

    def __init__(self, device: torch.device) -> None:
        self.is_cuda = device.type == 'cuda'

    def mark(self) -> Any:
        """This moment, in the order of the device's work."""
        if not self.is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        """Wait until the device has done all its work."""
        if self.is_cuda:
            torch.cuda.synchronize()

    def milliseconds(self, start: Any, end: Any) -> float:
        """Time between two moments; call :meth:`wait` before."""
        if self.is_cuda:
            return start.elapsed_time(end)
        return (end - start) * 1e3


def device_name(device: torch.device) -> str:
    """Model name of a device: 'AMD EPYC', 'NVIDIA GeForce RTX 3090'."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            names = [li for li in file if li.startswith('model name')]
    except OSError:
        names = []
    if names:
        return names[0].partition(':')[2].strip()
    return platform.processor() or platform.machine()


def timed_layers(model: nn.Module) -> Dict[str, nn.Module]:
    """Conv and linear layers of a plain model by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if is_weighted(module)
    }


def time_pass(model: nn.Module, image: Tensor, clock: Clock) -> float:
    """Milliseconds of one forward pass of a model in evaluation mode."""
    return clock.milliseconds(*_mark_pass(model, image, clock))


def _mark_pass(
    model: nn.Module, image: Tensor, clock: Clock
) -> Tuple[Any, Any]:
    """Begin and end of one forward pass, once the device has done it."""
    clock.wait()
    start = clock.mark()
    forward_tensors(model, image)
    end = clock.mark()
    clock.wait()
    return start, end


def time_layers(
    model: nn.Module, image: Tensor, clock: Clock
) -> Dict[str, float]:
    """Milliseconds of each layer and what follows it, in one forward pass.

    Args:
        model (nn.Module): A plain model in evaluation mode.
        image (Tensor): [B, C, H, W].
        clock (Clock): Of the model's device.

    Returns:
        dict[str, float]: In the order of first calls; the sum is the time
        of the pass. Layers that do not run are missing.
    """
    marks: List[Tuple[str, Any]] = []
    hooks = [
        module.register_forward_pre_hook(_marker(name, marks, clock))
        for name, module in timed_layers(model).items()
    ]
    with removing(hooks):
        start, end = _mark_pass(model, image, clock)
    # What runs behind a layer is timed with it, what runs before the first one
    # with that; so the sum is the whole pass.
    moments = [start, *(moment for _, moment in marks[1:]), end]
    times: Dict[str, float] = {}
    for (name, _), begin, stop in zip(marks, moments, moments[1:]):
        spent = clock.milliseconds(begin, stop)
        times[name] = times.get(name, 0.0) + spent
    return times


def _marker(name: str, marks: List[Tuple[str, Any]], clock: Clock) -> Any:
    def mark(module: nn.Module, inputs: Any) -> None:
        marks.append((name, clock.mark()))

    return mark


def layer_kinds(model: nn.Module, image: Tensor) -> Dict[str, str]:
    """What is the same for layers that cost the same at the same widths.

    Args:
        model (nn.Module): A plain model in evaluation mode.
        image (Tensor): [1, C, H, W].

    Returns:
        dict[str, str]: For each layer that runs its type, kernel, widths
        and output size, and the modules that end before the next layer
        begins, such as 'Conv2d 3x3, 16 to 16, 32x32: BatchNorm2d, ReLU'.
    """
    texts: Dict[str, List[str]] = {}
    order: List[str] = []
    layers = {module: name for name, module in timed_layers(model).items()}

    def begin(module: nn.Module, inputs: Any) -> None:
        order.append(layers[module])

    def finish(module: nn.Module, inputs: Any, output: Any) -> None:
        if module in layers:
            words = texts.setdefault(layers[module], [])
            describe = kind_of(module).describe
            words.append(describe(module, output) + ':')
        elif order and not isinstance(module, (nn.Sequential, nn.Identity)):
            texts[order[-1]].append(type(module).__name__)

    hooks = [m.register_forward_pre_hook(begin) for m in layers]
    hooks += [m.register_forward_hook(finish) for m in model.modules()]
    with removing(hooks):
        forward_tensors(model, image)
    return {name: _join(words) for name, words in texts.items()}


def _join(words: List[str]) -> str:
    text = ', '.join(words).replace(':,', ':')
    return text[:-1] if text.endswith(':') else text


class Measurement(NamedTuple):
    """Medians of one model, in milliseconds.

    Attributes:
        total (float): Of a forward pass.
        layers (dict[str, float]): Of the layers, with the sum ``total``;
            empty if they were not asked for.
    """

    total: float
    layers: Dict[str, float]


def measure(
    models: Sequence[nn.Module],
    size: Tuple[int, ...],
    device: torch.device,
    rounds: int,
    by_layer: bool = False,
) -> List[Measurement]:
    """Time the forward passes of models that take turns.

    Before each measured pass of a model is one that is not measured.

    Args:
        models (Sequence[nn.Module]): Plain models.
        size (tuple): (B, C, H, W).
        device (torch.device): Where to.
        rounds (int): Passes of each; medians count.
        by_layer (bool): Time the layers, too. Defaults to False.
    """
    clock = Clock(device)
    models = [model.to(device).eval() for model in models]
    image = demo_tensor(models[0], size)
    totals: List[List[float]] = [[] for _ in models]
    layers: List[List[Dict[str, float]]] = [[] for _ in models]
    with torch.no_grad(), _current(device):
        for _ in range(rounds):
            for index, model in enumerate(models):
                time_pass(model, image, clock)
                totals[index].append(time_pass(model, image, clock))
                if by_layer:
                    layers[index].append(time_layers(model, image, clock))
    return [_medians(*rows) for rows in zip(totals, layers)]


def _current(device: torch.device) -> ContextManager:
    """Make a GPU the one that events are recorded on."""
    if device.type == 'cuda':
        return torch.cuda.device(device)
    return nullcontext()


def _medians(
    totals: List[float], layers: List[Dict[str, float]]
) -> Measurement:
    """The layers are scaled to the pass without the clocks in between."""
    total = statistics.median(totals)
    if not layers:
        return Measurement(total, {})
    medians = {
        name: statistics.median(row[name] for row in layers)
        for name in layers[0]
    }
    factor = total / sum(medians.values())
    return Measurement(total, {n: t * factor for n, t in medians.items()})


def find_device(name: str) -> torch.device:
    """The device to measure on.

    Raises:
        DMSError: If it is no CPU or GPU of this machine.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device('meta')
    if device.type not in ('cpu', 'cuda'):
        raise DMSError(f"device must be 'cpu' or 'cuda', got {name!r}.")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == 'cuda' and (device.index or 0) >= gpus:
        raise DMSError(f'device {name!r} is not available on this machine.')
    return device


@contextmanager
def use_threads(number: Optional[int]) -> Iterator[None]:
    """Let torch use a number of CPU threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
