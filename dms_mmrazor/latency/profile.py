"""Measure the layers of a supernet on the device at hand (Eq. 9)."""

import statistics
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import nn

from dms_mmrazor.core import LatencyFit, fit_latency
from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.demo import demo_tensor, evaluating
from dms_mmrazor.latency.measure import (
    Measurement,
    device_name,
    find_device,
    layer_kinds,
    measure,
    timed_layers,
    use_threads,
)
from dms_mmrazor.latency.sampling import Prepared, SubnetSampler, levels
from dms_mmrazor.latency.table import (
    Device,
    LatencyTable,
    LayerKind,
    Point,
)
from dms_mmrazor.layers import channels_of, is_depthwise
from dms_mmrazor.models.mutators import DMSMutator

DIVISORS = (1, 8, 16, 32)
"""Which multiples are compared to recommend a divisor."""

Reference = Tuple[nn.Module, float]
"""The supernet, and its latency when the layers were measured."""

_ROUNDED = 5
"""Structures of which every rounding is measured."""


class Settings(NamedTuple):
    """How to measure.

    Attributes:
        device (str): 'cpu', 'cuda' or 'cuda:1'. Defaults to 'cpu'.
        batch_size (int): Images in a batch. Defaults to 1.
        threads (int, optional): Threads of torch on the CPU. Defaults to
            None, torch's own choice.
        divisor (int): Measured widths are multiples of it, or full.
            Defaults to 8.
        structures (int): Random structures to measure, beside the
            supernet. Defaults to 24.
        held_out (int): Further ones to check the predictions with.
            Defaults to 8.
        rounds (int): Measurements of each; medians count. Defaults to 15.
        seed (int): Of the random structures. Defaults to 0.
    """

    device: str = 'cpu'
    batch_size: int = 1
    threads: Optional[int] = None
    divisor: int = 8
    structures: int = 24
    held_out: int = 8
    rounds: int = 15
    seed: int = 0


def profile_latency(algorithm: Prepared, settings: Settings) -> LatencyTable:
    """Measure a supernet and pruned copies of it, and fit Eq. 9.

    All models take turns, so that a slow moment of the machine meets them
    alike. Layers are timed within their networks.

    Args:
        algorithm (Prepared): A :class:`DMSAlgorithm`, or a
            :class:`Search` of any target; afterwards its resources contain
            the fitted latency.
        settings (Settings): How to measure.

    Raises:
        DMSError: If a setting is not valid.
    """
    device = check_settings(settings)
    mutator = algorithm.mutator
    size = (settings.batch_size, *mutator.analyzer.input_size[1:])
    with use_threads(settings.threads):
        threads = torch.get_num_threads()
        sampler = SubnetSampler(algorithm, settings.seed, device)
        supernet = sampler.supernet
        fitted = fit_layers(sampler, supernet, settings, size, device)
        reference = (supernet, fitted.supernet)
        rounding = _compare_divisors(sampler, settings, size, reference)
    return LatencyTable(
        Device(
            device.type, device_name(device), threads, str(torch.__version__)
        ),
        size,
        settings.divisor,
        fitted.supernet,
        settings.rounds,
        _held_out(fitted, mutator),
        rounding,
        fitted.kinds,
    )


class FittedLayers(NamedTuple):
    """What was measured and fitted in one go.

    Attributes:
        supernet (float): Latency of the supernet in milliseconds.
        kinds (tuple[LayerKind]): The layers.
        choices (list[dict[str, int]]): Structures that no fit has seen.
        latencies (list[float]): Measured latency of each of them.
    """

    supernet: float
    kinds: Tuple[LayerKind, ...]
    choices: List[Dict[str, int]]
    latencies: List[float]


def fit_layers(
    sampler: SubnetSampler,
    supernet: nn.Module,
    settings: Settings,
    size: Tuple[int, ...],
    device: torch.device,
) -> FittedLayers:
    """Measure structures in turns; fit the layers of all but some of them.

    Args:
        sampler (SubnetSampler): Of the search; its mutator gets the fitted
            latency.
        supernet (nn.Module): The plain supernet.
        settings (Settings): How to measure.
        size (tuple): (B, C, H, W).
        device (torch.device): Where to.
    """
    models = [supernet] + [
        sampler.subnet(sampler.choices(level, settings.divisor), False)
        for level in levels(settings.structures)
    ]
    number = len(models)
    choices = [
        sampler.choices(level, settings.divisor)
        for level in levels(settings.held_out)
    ]
    models += [sampler.subnet(choice) for choice in choices]
    measured = measure(models, size, device, settings.rounds, by_layer=True)
    kinds = _fit_kinds(models[:number], measured[:number], size, device)
    sampler.mutator.set_latency({n: k.fit for k in kinds for n in k.layers})
    latencies = [row.total for row in measured[number:]]
    return FittedLayers(measured[0].total, kinds, choices, latencies)


def _held_out(fitted: FittedLayers, mutator: DMSMutator) -> Dict[str, float]:
    """Errors of the predictions of structures that no fit has seen."""
    errors = [
        abs(mutator.resource_of('latency', choice) / latency - 1)
        for choice, latency in zip(fitted.choices, fitted.latencies)
    ]
    return {
        'structures': len(errors),
        'mean': statistics.mean(errors),
        'worst': max(errors),
    }


def check_settings(settings: Settings) -> torch.device:
    """The device to measure on.

    Raises:
        DMSError: If a setting is not valid.
    """
    counts = settings._asdict()
    least = dict.fromkeys(('batch_size', 'divisor', 'rounds', 'held_out'), 1)
    for key, low in {**least, 'structures': 4, 'threads': 1}.items():
        if counts[key] is not None and counts[key] < low:
            raise DMSError(f'{key} must be >= {low}, got {counts[key]}.')
    return find_device(settings.device)


def _fit_kinds(
    models: Sequence[nn.Module],
    measured: Sequence[Measurement],
    size: Tuple[int, ...],
    device: torch.device,
) -> Tuple[LayerKind, ...]:
    """Fit every kind of layer to all its measurements."""
    with evaluating(models[0]):
        image = demo_tensor(models[0], (1, *size[1:]))
        kinds = layer_kinds(models[0], image)
    names: Dict[str, List[str]] = {}
    for layer in measured[0].layers:
        names.setdefault(kinds[layer], []).append(layer)
    layers = [timed_layers(model) for model in models]
    return tuple(
        _fit_kind(kind, members, layers, measured)
        for kind, members in names.items()
    )


def _fit_kind(
    kind: str,
    members: Sequence[str],
    layers: Sequence[Dict[str, nn.Module]],
    measured: Sequence[Measurement],
) -> LayerKind:
    """Residuals count relative to the latency of the whole network."""
    full = _channels(layers[0][members[0]])
    points, weights = [], []
    for modules, times in zip(layers, measured):
        for name in members:
            points.append((*_channels(modules[name]), times.layers[name]))
            weights.append(1 / times.total)
    # The inputs of a depthwise convolution are its outputs.
    depthwise = is_depthwise(layers[0][members[0]])
    fit: LatencyFit = fit_latency(
        [1.0 if depthwise else inputs / full[0] for inputs, _, _ in points],
        [outputs / full[1] for _, outputs, _ in points],
        [milliseconds for _, _, milliseconds in points],
        weights,
    )
    return LayerKind(kind, tuple(members), full, fit, _summarize(points))


def _summarize(points: Sequence[Point]) -> Tuple[Point, ...]:
    """The median for every pair of widths."""
    times: Dict[Tuple[int, int], List[float]] = {}
    for inputs, outputs, milliseconds in points:
        times.setdefault((inputs, outputs), []).append(milliseconds)
    return tuple(
        (*widths, statistics.median(found))
        for widths, found in sorted(times.items())
    )


def _channels(layer: nn.Module) -> Tuple[int, int]:
    return channels_of(layer, True), channels_of(layer, False)


def _ratios(
    sampler: SubnetSampler,
    choices: Sequence[Dict[str, int]],
    settings: Settings,
    size: Tuple[int, ...],
    reference: Reference,
) -> List[float]:
    """Measured over predicted latency of structures.

    The supernet takes its turn, too: if the machine is slower now than it
    was for the table, that is no error of the prediction.
    """
    supernet, before = reference
    models = [supernet] + [sampler.subnet(choice) for choice in choices]
    device = next(supernet.parameters()).device
    measured = measure(models, size, device, settings.rounds)
    factor = before / measured[0].total
    return [
        row.total * factor / sampler.mutator.resource_of('latency', choice)
        for choice, row in zip(choices, measured[1:])
    ]


def _compare_divisors(
    sampler: SubnetSampler,
    settings: Settings,
    size: Tuple[int, ...],
    reference: Reference,
) -> Dict[int, float]:
    """Measured over predicted latency of widths by several divisors."""
    widest = max((u.num_channels for u in sampler.mutator.units), default=1)
    divisors = sorted({*DIVISORS, settings.divisor})
    divisors = [d for d in divisors if d == 1 or d < widest]
    choices = []
    for level in levels(_ROUNDED):
        wishes = sampler.wishes(level)
        choices += [sampler.rounded(wishes, d) for d in divisors]
    ratios = _ratios(sampler, choices, settings, size, reference)
    return {
        divisor: statistics.median(ratios[index :: len(divisors)])
        for index, divisor in enumerate(divisors)
    }
