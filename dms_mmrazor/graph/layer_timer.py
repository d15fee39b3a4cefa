"""Where the time of a forward pass goes, layer by layer, where it runs.

A pass is cut at the beginning of each conv and linear layer. What lies
between two of them (the norm, activation, addition or pooling after a layer)
belongs to the layer before it: its cost grows with that layer's width, and
it goes when the layer goes. So the parts add up to the whole, and every
layer is measured with the memory traffic of its place in the network.
"""

import platform
import time
from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor, nn

from dms_mmrazor.graph.demo import forward_tensors
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
    clock.wait()
    start = clock.mark()
    forward_tensors(model, image)
    end = clock.mark()
    clock.wait()
    return clock.milliseconds(start, end)


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
    handles = [
        module.register_forward_pre_hook(_marker(name, marks, clock))
        for name, module in timed_layers(model).items()
    ]
    try:
        clock.wait()
        start = clock.mark()
        forward_tensors(model, image)
        end = clock.mark()
        clock.wait()
    finally:
        for handle in handles:
            handle.remove()
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

    handles = [m.register_forward_pre_hook(begin) for m in layers]
    handles += [m.register_forward_hook(finish) for m in model.modules()]
    try:
        forward_tensors(model, image)
    finally:
        for handle in handles:
            handle.remove()
    return {name: _join(words) for name, words in texts.items()}


def _join(words: List[str]) -> str:
    text = ', '.join(words).replace(':,', ':')
    return text[:-1] if text.endswith(':') else text
