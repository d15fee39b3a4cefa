import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dms_mmrazor.core import index_importance, l1_importance
from dms_mmrazor.layers.attention import split_qkv


class Counting(TorchDispatchMode):
    """Counts the tensor operations within its context."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        return func(*args, **(kwargs or {}))


def expected_l1(unit):
    """Norms of all filters that give a channel, one unit at a time."""
    if unit.attention_dim is not None:
        attention = unit.attention_dim.module
        rows = l1_importance(attention.qkv.weight.detach(), 0)
        query, key, value = split_qkv(attention, rows)
        return {
            'heads': torch.cat([query, key, value], dim=1).sum(dim=1),
            'qk_dims': (query + key).sum(dim=0),
            'v_dims': value.sum(dim=0),
        }[unit.attention_dim.kind]
    scores = torch.zeros(unit.num_channels)
    for channel in unit.output_related:
        if isinstance(channel.module, (nn.Conv2d, nn.Linear)):
            rows = l1_importance(channel.module.weight.detach(), 0)
            rows = rows[channel.start : channel.end]
            scores += rows.view(unit.num_channels, -1).sum(dim=1)
    return scores


def expected(search, metric):
    mutator = search.mutator
    parts = [
        expected_l1(unit)
        if metric == 'l1'
        else index_importance(unit.num_channels)
        for unit in mutator.units
    ]
    stages = mutator.depth_units
    return torch.cat(
        [*parts, *(index_importance(s.num_blocks) for s in stages)]
    )


def architectures(zoo):
    return {'cnn': zoo.cifar_resnet(18), 'transformer': zoo.vit(48, 3, 3)}


@pytest.mark.parametrize('metric', ['index', 'l1'])
@pytest.mark.parametrize('name', ['cnn', 'transformer'])
def test_scores_are_those_of_each_unit(zoo, name, metric):
    search = zoo.algorithm(
        architectures(zoo)[name],
        32,
        mutator=dict(importance=dict(metric=metric), verify=False),
    )
    found = search.mutator.static_scores()
    torch.testing.assert_close(found, expected(search, metric))
    # The weights of this moment, not of the start.
    for parameter in search.architecture.parameters():
        parameter.data.mul_(3.0)
    found = search.mutator.static_scores()
    torch.testing.assert_close(found, expected(search, metric))


def test_one_norm_per_layer_and_a_handful_for_all_units(zoo):
    search = zoo.algorithm(
        zoo.cifar_resnet(18),
        mutator=dict(importance=dict(metric='l1'), verify=False),
    )
    layers = {
        channel.module
        for unit in search.mutator.units
        for channel in unit.output_related
        if isinstance(channel.module, (nn.Conv2d, nn.Linear))
    }
    with Counting() as counting:
        search.mutator.static_scores()
    # Older versions of torch take more operations for a norm.
    assert counting.number <= 4 * len(layers) + 10
    index = zoo.algorithm(
        zoo.cifar_resnet(18),
        mutator=dict(importance=dict(metric='index'), verify=False),
    )
    with Counting() as counting:
        index.mutator.static_scores()
    assert counting.number == 0
