import pytest
import torch
from mmpretrain.models import backbones
from torch import nn

from dms_mmrazor.graph import DMSChannelAnalyzer
from dms_mmrazor.graph.channel_sets import tied_groups


class Shuffled(nn.Module):
    """Ties its channels in another way each time."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 12, 1)
        self.b = nn.Conv2d(12, 4, 1)

    def forward(self, x):
        x = self.a(x)
        y = x + torch.channel_shuffle(x, 3)
        return self.b(y + torch.channel_shuffle(y, 4))


@pytest.mark.parametrize(
    'make',
    [
        lambda: backbones.ShuffleNetV2(widen_factor=0.5),
        lambda: backbones.MobileNetV2(widen_factor=0.35),
        lambda: backbones.DenseNet('121'),
        Shuffled,
    ],
)
def test_groups_are_those_of_mmrazor(make):
    analyzer = DMSChannelAnalyzer(demo_input=(1, 3, 64, 64))
    model = make()
    model.eval()  # it does not return itself
    graph = analyzer._channel_graph(model, ())
    stock = graph.generate_units_config()
    found = tied_groups(graph.topo_traverse())
    wrong = list(torn(graph, stock))
    stock = list(stock.values())
    assert [group.torn for group in found] == [c in wrong for c in stock]
    assert [group.config for group in found] == list(map(of_names, stock))


def of_names(config):
    """A group without what stands for a function."""
    channels = {
        key: [side for side in sides if isinstance(side['name'], str)]
        for key, sides in config['channels'].items()
    }
    return {**config, 'channels': channels}


def torn(graph, configs):
    """Groups of which a channel is tied to another one."""
    known = {}
    for node in graph.topo_traverse():
        for tensor in (node.out_channel_tensor, node.in_channel_tensor):
            for (start, end), key in tensor.elems_hash_dict.items():
                size = configs[key]['init_args']['num_channels']
                roots = [elem.root for elem in tensor[start:end]]
                each, rest = divmod(len(roots), size)
                first = known.setdefault(key, roots[::each])
                expanded = [root for root in first for _ in range(each)]
                if rest or len(set(first)) < size or expanded != roots:
                    yield configs[key]


def test_torn_groups_are_not_searched():
    analyzer = DMSChannelAnalyzer(demo_input=(1, 3, 8, 8))
    reasons = {g.name: g.reason for g in analyzer.analyze_groups(Shuffled())}
    assert 'tied to one another' in reasons['a']
