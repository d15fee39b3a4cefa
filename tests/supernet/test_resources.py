"""A resource is one entry: here one that no search has had before."""

import pytest
import torch
from torch import nn

from dms_mmrazor import Search
from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.demo import (
    batch_of,
    demo_tensor,
    forward_tensors,
)
from dms_mmrazor.supernet.resources import (
    RESOURCES,
    Resource,
    as_terms,
    register_resource,
)

SIZE = (1, 3, 8, 8)
FLOAT = 4


def activation_terms(sides, profiles):
    """Bytes of what the layers give: positions times channels."""
    return [
        term
        for p in profiles
        for term in as_terms(
            sides, p.name, sides.products(p.name, False), FLOAT * p.positions
        )
    ]


def count_activations(model, demo):
    """The same, seen from outside."""
    sizes = []
    handles = [
        module.register_forward_hook(
            lambda module, args, output: sizes.append(output.numel())
        )
        for module in model.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    forward_tensors(model, demo_tensor(model, demo))
    for handle in handles:
        handle.remove()
    return FLOAT * sum(sizes) / batch_of(demo)


ACTIVATIONS = Resource(
    'activations',
    activation_terms,
    count_activations,
    units={'KB': 1e3, 'MB': 1e6},
    base='B',
    shown=('MB', 'KB'),
    examples="'20MB'",
    of_input=True,
)


@pytest.fixture
def activations(monkeypatch):
    monkeypatch.setitem(RESOURCES, 'activations', ACTIVATIONS)


def net():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 5),
    )


FULL = FLOAT * (16 * 64 + 32 * 16 + 5)


def test_an_entry_is_all_that_a_resource_needs(activations):
    search = Search(net(), torch.rand(SIZE), {'activations': '4KB'}, 2)
    assert search.resources()['activations'] == FULL
    assert search.targets == {'activations': 4000}
    assert f'activations: {FLOAT * (1 * 64 + 16 + 5)}' in search.report()
    for _ in range(2):
        search.model(torch.rand(SIZE)).sum().backward()
        log = search.step()
    assert 'loss_activations' in log
    subnet = search.export(divisor=1)
    row = subnet.structure.resources['activations']
    assert row['subnet'] == count_activations(subnet.model, SIZE) <= 4000
    assert row['supernet'] == FULL
    assert row['input_size'] == [3, 8, 8]


def test_units_and_messages_are_of_the_entry(activations):
    assert ACTIVATIONS.format(6164.0) == '6.164KB'
    assert ACTIVATIONS.format(61.0) == '61B'
    assert ACTIVATIONS.in_full(6164.0) == '6,164 B'
    assert ACTIVATIONS.parse(0.5, 6000.0) == 3000
    with pytest.raises(DMSError, match="'20MB'.*'4ms'"):
        Search(net(), torch.rand(SIZE), {'activations': '4ms'}, 2)


def test_what_cannot_be_an_entry():
    with pytest.raises(DMSError, match="'macs'"):
        register_resource(RESOURCES['macs'])
    with pytest.raises(DMSError, match="'TB'"):
        register_resource(ACTIVATIONS._replace(shown=('TB',)))
    assert 'activations' not in RESOURCES
