"""Layers that a trace misses, though it ends well."""

import pytest
import torch
from torch import fx, nn

from dms_mmrazor.graph import DMSChannelAnalyzer
from dms_mmrazor.graph.reached_layers import (
    LostLayersError,
    check_reached,
    lost_layers,
)

SIZE = (1, 3, 8, 8)


class Inner(nn.Module):
    """Cannot be followed with symbols."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.one(x if float(x.min()) < 1e6 else x * 2)


def model():
    return nn.Sequential(nn.Conv2d(3, 8, 1), Inner(), nn.Conv2d(8, 4, 1))


def test_a_module_as_a_value_is_not_reached():
    net, graph = model(), fx.Graph()
    x = graph.call_module('0', (graph.placeholder('x'),))
    inner = graph.get_attr('1')
    graph.call_method('forward', (inner, x))
    weight = graph.get_attr('2.weight')
    graph.output(graph.call_function(torch.conv2d, (x, weight)))
    ran = ['0', '1.one', '2']
    assert lost_layers(graph, net, ran) == ['1.one']
    with pytest.raises(LostLayersError, match='`1.one`'):
        check_reached(graph, net, ran)


def test_what_is_lost_is_found_in_a_run():
    net = model()
    blind = DMSChannelAnalyzer(SIZE).analyze_groups(net)
    groups = DMSChannelAnalyzer(SIZE).analyze_groups(net, ['0', '1.one', '2'])
    assert sum(not group.reason for group in blind) < 2
    assert [g.name for g in groups if not g.reason] == ['0', '1.one']


def test_norms_of_a_module_that_is_called_so_are_lost_too():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.Sequential(nn.BatchNorm2d(8)),
        nn.Conv2d(8, 4, 1),
    )
    graph = fx.Graph()
    x = graph.call_module('0', (graph.placeholder('x'),))
    x = graph.call_method('forward', (graph.get_attr('1'), x))
    graph.output(graph.call_module('2', (x,)))
    assert lost_layers(graph, net, ['0', '2']) == ['1.0']
    check_reached(graph, net, ())  # nothing is known of a run
