"""Time models that take turns, as a whole and layer by layer."""

import statistics
from contextlib import contextmanager, nullcontext
from typing import (
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
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.demo import demo_tensor
from dms_mmrazor.graph.layer_timer import (
    Clock,
    time_layers,
    time_pass,
)


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
