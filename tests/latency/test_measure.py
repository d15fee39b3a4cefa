import platform

import pytest
import torch
from torch import nn

from dms_mmrazor.latency.measure import (
    Clock,
    device_name,
    layer_kinds,
    time_layers,
    time_pass,
    timed_layers,
)

CPU = torch.device('cpu')


class Steps(nn.Module):
    """Does nothing but let a time pass."""

    def __init__(self, clock, steps):
        super().__init__()
        self.clock = clock
        self.steps = steps

    def forward(self, x):
        self.clock.now += self.steps
        return x


class FakeClock(Clock):
    """Time passes where a module says so."""

    def __init__(self):
        super().__init__(CPU)
        self.now = 0.0

    def mark(self):
        return self.now

    def milliseconds(self, start, end):
        return end - start


@pytest.fixture
def timed():
    clock = FakeClock()
    shared = nn.Conv2d(4, 4, 1)
    model = nn.Sequential(
        Steps(clock, 1),
        nn.Conv2d(3, 4, 3, padding=1),
        Steps(clock, 2),
        shared,
        Steps(clock, 4),
        shared,
        Steps(clock, 8),
        nn.Flatten(),
        nn.Linear(64, 5),
        Steps(clock, 16),
    )
    return model.eval(), clock


def test_what_follows_a_layer_is_its_own(timed):
    model, clock = timed
    image = torch.rand(2, 3, 4, 4)
    times = time_layers(model, image, clock)
    # What comes before the first layer counts for it.
    assert times == {'1': 3, '3': 12, '8': 16}
    assert sum(times.values()) == time_pass(model, image, clock)


def test_leaves_no_hooks(timed):
    model, clock = timed
    layer_kinds(model, torch.rand(1, 3, 4, 4))
    time_layers(model, torch.rand(1, 3, 4, 4), clock)
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_takes_its_hooks_away_after_an_error(timed):
    model, clock = timed
    for image in (torch.rand(1, 3, 5, 4), torch.rand(1, 2, 4, 4)):
        with pytest.raises(RuntimeError):
            time_layers(model, image, clock)
        with pytest.raises(RuntimeError):
            layer_kinds(model, image)
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_real_time_adds_up(zoo):
    model = zoo.plain(zoo.cifar_resnet(18)).eval()
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        times = time_layers(model, image, Clock(CPU))
    assert list(times) == list(timed_layers(model))
    assert all(value > 0 for value in times.values())


def test_kinds(zoo):
    model = zoo.plain(zoo.cifar_resnet(34)).eval()
    with torch.no_grad():
        kinds = layer_kinds(model, torch.rand(1, 3, 32, 32))
    assert list(kinds) == list(timed_layers(model))
    assert kinds['backbone.conv1'] == (
        'Conv2d 3x3, 3 to 16, 32x32: BatchNorm2d, ReLU'
    )
    stage = [kinds[f'backbone.layer3.{i}.conv2'] for i in range(1, 6)]
    assert len(set(stage[:-1])) == 1
    # The pooling follows the last one.
    assert stage[-1].endswith('GlobalAveragePooling')
    first = kinds['backbone.layer3.0.conv1']
    assert first.startswith('Conv2d 3x3, 32 to 64, 8x8 by stride 2: ')
    assert kinds['head.fc'].startswith('Linear, 64 to 10, 1: ')


def test_kinds_of_grouped_convolutions():
    model = nn.Sequential(
        nn.Conv2d(3, 8, (1, 3)), nn.Conv2d(8, 8, 3, groups=8, padding=1)
    ).eval()
    kinds = layer_kinds(model, torch.rand(1, 3, 6, 6))
    assert kinds == {
        '0': 'Conv2d 1x3, 3 to 8, 6x4',
        '1': 'Conv2d 3x3, 8 to 8, 6x4 in 8 groups',
    }


def test_the_device_has_a_name(monkeypatch):
    assert device_name(CPU).strip()
    monkeypatch.setattr(platform, 'processor', lambda: 'A1')

    def no_file(*args, **kwargs):
        raise FileNotFoundError

    monkeypatch.setattr('builtins.open', no_file)
    assert device_name(CPU) == 'A1'


def test_a_gpu_is_timed_by_events(monkeypatch):
    """The order of calls; no GPU is needed for it."""
    calls = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            calls.append('record')

        def elapsed_time(self, end):
            calls.append('elapsed')
            return 2.5

    monkeypatch.setattr(torch.cuda, 'Event', Event)
    monkeypatch.setattr(
        torch.cuda, 'synchronize', lambda: calls.append('synchronize')
    )
    clock = Clock(torch.device('cuda'))
    model = nn.Conv2d(3, 4, 1)
    assert time_pass(model, torch.rand(1, 3, 2, 2), clock) == 2.5
    assert calls == [
        *('synchronize', 'record', 'record', 'synchronize', 'elapsed')
    ]
