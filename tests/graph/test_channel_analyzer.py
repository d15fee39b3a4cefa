import logging
import math
from importlib import import_module

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import DMSChannelAnalyzer
from dms_mmrazor.graph.channel_graph import DMSChannelGraph
from dms_mmrazor.graph.channel_groups import Side
from dms_mmrazor.registry import TASK_UTILS


def node_of(kind, *args, **kwargs):
    """A node of mmrazor's graph, which must not be imported first."""
    nodes = import_module('mmrazor.structures.graph.channel_nodes')
    return getattr(nodes, kind)(*args, **kwargs)


def analyze(model, size=8):
    analyzer = DMSChannelAnalyzer(demo_input=(1, 3, size, size))
    return {group.name: group for group in analyzer.analyze_groups(model)}


def reasons(model):
    return {name: group.reason for name, group in analyze(model).items()}


def test_resnet_groups(zoo):
    model = zoo.plain(zoo.resnet(18))
    groups = analyze(model, 64)
    searched = {n: g for n, g in groups.items() if not g.reason}
    # Stem and stages 1, 2, 3, 4 and the inside of each of the 8 blocks.
    assert len(searched) == 12
    coupled = searched['backbone.conv1'].layers
    assert ('backbone.layer1.1.conv2', True) in coupled
    assert ('backbone.layer2.0.downsample.0', False) in coupled
    rest = {n: g.reason for n, g in groups.items() if g.reason}
    assert rest == {
        'input of backbone.conv1': "its channels are (tied to) the model's "
        'input',
        'head.fc': "its channels are (tied to) the model's output",
    }


def test_mmrazor_interface_has_the_searchable_groups(zoo):
    # Only after `compat` has imported mmrazor.
    from mmrazor.models.task_modules.tracer import ChannelAnalyzer

    model = zoo.plain(zoo.cifar_resnet())
    analyzer = TASK_UTILS.build(
        dict(type='DMSChannelAnalyzer', demo_input=(1, 3, 32, 32))
    )
    configs = analyzer.analyze(model)
    stock = ChannelAnalyzer((1, 3, 32, 32), tracer_type='FxTracer')
    sizes = sorted(c['init_args']['num_channels'] for c in configs.values())
    expected = stock.analyze(model).values()
    assert sizes == sorted(c['init_args']['num_channels'] for c in expected)


def test_the_model_and_the_logger_are_not_changed(zoo):
    model = zoo.plain(zoo.cifar_resnet())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    logger = MMLogger.get_current_instance()
    logger.setLevel(logging.INFO)
    analyze(model, 32)
    assert logger.level == logging.INFO and model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


class DoubledNorm(nn.LayerNorm):
    """Of a class of its own that computes something of its own."""

    def forward(self, x):
        x = super().forward(x.permute(0, 2, 3, 1))
        return 2 * x.permute(0, 3, 1, 2)


def test_reason_of_an_unsupported_layer():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        DoubledNorm(4),
        nn.Conv2d(4, 6, 1),
        nn.Conv2d(6, 5, 1),
    )
    found = reasons(model)
    assert found['0'] == '1 is a DoubledNorm, not supported'
    assert found['2'] == ''


def test_reason_of_a_subclass_with_its_own_forward():
    class Scaled(nn.Conv2d):
        def forward(self, image):
            return super().forward(image) * self.weight.std()

    model = nn.Sequential(Scaled(3, 4, 1), nn.Conv2d(4, 5, 1))
    assert reasons(model)['0'] == '0 is a Scaled, not supported'


def test_reason_of_a_single_channel():
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 5, 1))
    assert reasons(model)['0'] == 'it has a single channel'


def test_a_model_that_decides_by_values_is_recorded():
    class Opaque(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.head = nn.Conv2d(4, 2, 1)

        def forward(self, image):
            image = self.conv(image)
            return self.head(image + 1 if image.sum() > 0 else image)

    assert not reasons(Opaque())['conv']


def test_a_model_that_cannot_be_traced():
    class Opaque(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, image):
            raise ValueError('not so\nnor so')

    with pytest.raises(DMSError, match='Opaque cannot be traced') as error:
        analyze(Opaque())
    assert '\n' not in str(error.value)


def test_concatenated_units():
    class Concat(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)
            self.b = nn.Conv2d(3, 6, 1)
            self.c = nn.Conv2d(10, 5, 1)

        def forward(self, image):
            return self.c(torch.cat([self.a(image), self.b(image)], 1))

    groups = analyze(Concat())
    assert ('c', False) in groups['b'].layers
    assert Side('c', 4, 10, False) in groups['b'].sides
    assert groups['a'].reason == groups['b'].reason == ''


class Resized(nn.Module):
    """Its code asks for the size of the image."""

    def __init__(self, limit):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=32)
        self.second = nn.Conv2d(8, 5, 1)
        self.limit = limit

    def forward(self, image):
        x = self.first(image)
        if image.shape[2] > self.limit:
            x = x[:, :, 1:]
        return self.second(x)


@pytest.mark.parametrize(
    'limit, size, proof',
    [
        (100, (600, 400), (256, 256)),
        (100, (600, 128), (256, 128)),
        (100, (224, 224), (224, 224)),
        # Another path through the code: not the same model.
        (300, (600, 400), (600, 400)),
    ],
)
def test_a_small_input_proves_where_the_code_does_the_same(limit, size, proof):
    analyzer = DMSChannelAnalyzer(demo_input=(1, 3, *size))
    groups = analyzer.analyze_groups(Resized(limit))
    assert [group.name for group in groups if not group.reason] == ['first']
    assert analyzer.proof_size == (1, 3, *proof)


class Rounded(nn.Module):
    """Its code rounds the size of the image, and asks where it is."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.second = nn.Conv2d(8, 5, 1)

    def forward(self, image):
        return self.second(self.inner(self.first(image)))

    def inner(self, x):
        size = math.ceil(x.shape[2] / 3) * 3, math.floor(x.shape[3] / 3) * 3
        if size != x.shape[2:]:
            x = nn.functional.interpolate(x, size)
        with torch.autocast(x.device.type, enabled=False):
            return x.float()


def test_code_that_rounds_sizes_is_followed():
    assert reasons(Rounded())['first'] == ''


def test_inserted_nodes_have_names_of_their_own():
    """`expand_1` is what a trace calls the second ``Tensor.expand``."""
    graph = DMSChannelGraph()
    graph.add_node(node_of('ExpandChannelNode', 'expand_1', 'expand'))
    other = node_of('ExpandChannelNode', 'expand_1', 'expand', expand_ratio=2)
    graph.add_node(other)
    assert graph.nodes['expand_1_'] is other


def test_channels_end_before_a_node_that_has_those_it_reads():
    graph = DMSChannelGraph()
    given = node_of('InputChannelNode', 'given', 'input', input_channels=4)
    read = node_of('CatChannelNode', 'read', 'cat')
    for node in (given, read):
        graph.add_node(node)
    graph.connect(given, read)
    graph._convert_a_node_to_end_node(read)
    assert [node.name for node in read.prev_nodes] == ['start_read']
    assert read.in_channels == 4
