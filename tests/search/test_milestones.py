"""Several plain models from one search, each at its budget."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dms_mmrazor import DMSError, Search
from dms_mmrazor.core.durations import PhaseLengths
from dms_mmrazor.core.milestones import Stop, Timeline, plan_stops

STEPS = 60
SIZE = (2, 3, 12, 12)


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels):
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.two(self.one(x).relu())


def make(**settings):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 48, 3, 2, 1),
        nn.Sequential(Block(48), Block(48), Block(48)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 4),
    )
    settings = {'target': 0.3, 'milestones': ['75%', 0.5], **settings}
    search = Search(model, torch.rand(SIZE), total_steps=STEPS, **settings)
    return search, torch.optim.SGD(model.parameters(), lr=0.01)


def batch(index):
    generator = torch.Generator().manual_seed(index)
    images = torch.rand(8, *SIZE[1:], generator=generator)
    return images, torch.randint(4, (8,), generator=generator)


def step(search, optimizer):
    images, labels = batch(search.iteration)
    F.cross_entropy(search.model(images), labels).backward()
    optimizer.step()
    optimizer.zero_grad()
    return search.step()


def run(search, optimizer, until=STEPS):
    """Logs, and what was exported at milestones."""
    logs, exported = [], {}
    while search.iteration < until:
        logs.append(step(search, optimizer))
        if 'milestone' in logs[-1]:
            exported[logs[-1]['milestone']] = search.export(divisor=1)
    return logs, exported


@pytest.fixture(scope='module')
def finished():
    search, optimizer = make()
    return (search, *run(search, optimizer))


def test_each_budget_is_met_and_settled_at(finished):
    search, logs, exported = finished
    assert list(exported) == ['subnet-75', 'subnet-50']
    exported['subnet'] = search.export(divisor=1)
    for (name, subnet), budget in zip(exported.items(), (0.75, 0.5, 0.3)):
        ratio = subnet.structure.resources['macs']['ratio']
        assert 0.995 * budget <= ratio <= budget, name
        assert subnet.difference <= 1e-5
        subnet.model.train()(torch.rand(SIZE)).sum().backward()
    for budget in (0.75, 0.5):
        stays = [
            log['phase'] == 'settle'
            for log in logs
            if abs(float(log['macs_target']) - budget) < 1e-6
        ]
        assert stays == [True] * 3, budget
    targets = [float(log['macs_target']) for log in logs]
    assert targets == sorted(targets, reverse=True)
    assert logs[-1]['phase'] == 'refine'


def test_the_depth_is_searched_again_after_a_milestone(finished):
    search, optimizer = make()
    held = []
    while search.iteration < STEPS:
        step(search, optimizer)
        held.append(bool(search.mutator.topk.held.any()))
    changes = [one for one, last in zip(held, [False, *held]) if one != last]
    assert changes == [True, False, True, False, True]
    search, optimizer = make(hold_depth=False)
    run(search, optimizer, 40)
    assert not search.mutator.topk.held.any()


@pytest.mark.parametrize('stop', [27, 30])
def test_it_goes_on_to_the_bit(finished, stop):
    search, optimizer = make()
    run(search, optimizer, stop)
    states = search.state_dict(), search.model.state_dict()
    other, fresh = make()
    other.load_state_dict(states[0])
    other.model.load_state_dict(states[1])
    _, exported = run(other, fresh)
    for name, subnet in exported.items():
        assert subnet.structure == finished[2][name].structure


def test_several_kinds():
    search, optimizer = make(
        target={'macs': 0.3, 'params': 0.5},
        milestones=[{'macs': 0.6, 'params': 0.6}],
    )
    _, exported = run(search, optimizer, 50)
    rows = exported['subnet-60'].structure.resources
    used = [rows[kind]['ratio'] / 0.6 for kind in ('macs', 'params')]
    assert max(used) <= 1 and max(used) > 0.99


@pytest.mark.parametrize(
    'settings, words',
    [
        (dict(milestones='75%'), 'a list such as'),
        (dict(milestones=[0.5, 0.75]), 'must fall'),
        (dict(milestones=[0.2]), 'must fall'),
        (dict(milestones=['x']), r'milestones\[0\]'),
        (dict(milestones=[0.5, '50%']), 'there twice'),
        (dict(milestones=[{'params': 0.5}]), 'kinds of the target'),
        (dict(settle=0.5), 'lower `settle`'),
        (dict(settle='2 epochs'), 'epochs'),
        (dict(settle=0), 'lower `settle`'),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(DMSError, match=words):
        make(**settings)


def test_stops_divide_the_decay():
    lengths = PhaseLengths(10.0, 80.0, 100)
    line = plan_stops(lengths, [1, 1, 2], 5)
    assert line.stops == (Stop(28, 33), Stop(50, 55))
    assert line.leg(9) == (0, 0.0)
    assert line.leg(19) == (0, 0.5)
    assert line.leg(30) == (0, 1.0)
    assert line.leg(32) == (0, 1.0)
    assert line.leg(41) == (1, 0.5)
    assert line.leg(72) == (2, 0.5)
    assert line.leg(95) == (2, 1.0)
    assert [line.at(i).name for i in (5, 20, 28, 32, 33, 95)] == (
        ['warmup', 'decay', 'settle', 'settle', 'decay', 'refine']
    )
    assert [line.due(i) for i in (31, 32, 54)] == [-1, 0, 1]
    assert Timeline(lengths).leg(50) == (0, 0.5)
