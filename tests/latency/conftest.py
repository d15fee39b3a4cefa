"""Latencies that follow a formula, so that tests do not depend on time."""

import copy
from typing import Any, Dict, List, NamedTuple

import pytest

SETTINGS = dict(structures=8, held_out=3, rounds=2, divisor=2, threads=1)


def formula(layer: Any) -> float:
    """Milliseconds of a layer, bilinear in its widths."""
    from torch import nn

    if isinstance(layer, nn.Linear):
        a, b = layer.in_features, layer.out_features
    else:
        a, b = layer.in_channels, layer.out_channels
    return 0.02 + 0.001 * a + 0.002 * b + 0.0001 * a * b


class Profiled(NamedTuple):
    """A search that was profiled, the table and the measurements."""

    search: Any
    table: Any
    calls: List[Dict[str, Any]]


def measure_by_formula(monkeypatch: Any) -> List[Dict[str, Any]]:
    """Replace measurements; returns the arguments of those to come."""
    from dms_mmrazor.latency import Measurement, compare, profile
    from dms_mmrazor.latency.measure import timed_layers

    calls: List[Dict[str, Any]] = []

    def measure(models, size, device, rounds, by_layer=False):
        calls.append(dict(size=size, device=device, rounds=rounds))
        rows = []
        for model in models:
            layers = {n: formula(m) for n, m in timed_layers(model).items()}
            total = sum(layers.values())
            rows.append(Measurement(total, layers if by_layer else {}))
        return rows

    monkeypatch.setattr(profile, 'measure', measure)
    monkeypatch.setattr(compare, 'measure', measure)
    return calls


@pytest.fixture
def by_formula(monkeypatch):
    """Let every measurement follow :func:`formula`."""
    return measure_by_formula(monkeypatch)


@pytest.fixture(scope='session')
def profiled(zoo):
    from dms_mmrazor.latency import Settings, profile_latency

    search = zoo.algorithm(zoo.cifar_resnet(18))
    with pytest.MonkeyPatch.context() as monkeypatch:
        calls = measure_by_formula(monkeypatch)
        table = profile_latency(search, Settings(**SETTINGS))
    return Profiled(search, table, calls)


@pytest.fixture
def search(profiled):
    return copy.deepcopy(profiled.search)


@pytest.fixture
def table(profiled):
    return profiled.table
