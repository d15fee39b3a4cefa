"""Of feature maps a trace needs the shapes alone."""

import pytest
import torch
from torch import Tensor, fx, nn

from dms_mmrazor.graph import DMSChannelAnalyzer
from dms_mmrazor.graph.light_copy import shape_copy
from dms_mmrazor.graph.node_values import (
    DTYPE,
    HAS_CHANNELS,
    SHAPE,
    UNKNOWN,
    NodeRunner,
    ShapeRunner,
    annotate,
    attribute,
)
from dms_mmrazor.graph.tried_functions import try_function

SIZE = (1, 3, 16, 24)


class Sorted(nn.Module):
    """Works on values, as suppression of boxes does."""

    def forward(self, x):
        assert x.device.type == 'cpu'
        return x.sort(dim=1)[0][:, : x.shape[1] // 2]


class Positions(nn.Module):
    """Numbers of rows, which do not depend on the image."""

    def forward(self, size, device):
        return torch.arange(size, device=device)


class Network(nn.Module):
    """A convolution, positions that do not depend on values, and a sort."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.positions = Positions()
        self.sorted = Sorted()

    def forward(self, x):
        x = self.norm(self.conv(x))
        rows = self.positions(x.shape[2], x.device)
        return self.sorted(x + rows.view(-1, 1)), rows


class Tracer(fx.Tracer):
    """Looks into modules of one class alone."""

    def __init__(self, opened):
        super().__init__()
        self.opened = opened

    def is_leaf_module(self, m, name):
        return not isinstance(m, self.opened)


@pytest.fixture
def traced():
    model = Network().eval()
    return model, Tracer(Network).trace(model)


def run(runner, graph):
    values = {}
    for node in graph.nodes:
        values[node] = runner.value(node, values)
    return {node.name: value for node, value in values.items()}


def test_shapes_are_those_of_a_run(traced):
    model, graph = traced
    image = torch.rand(SIZE)
    found = run(ShapeRunner(model, image), graph)
    expected = run(NodeRunner(model, image), graph)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, Tensor):
            assert found[name].shape == value.shape, name
            assert found[name].dtype == value.dtype, name
        elif name != 'output':
            assert found[name] == value, name
    maps = [v for v in found.values() if isinstance(v, Tensor) and v.dim() > 3]
    assert len(maps) == 5 and all(x.device.type == 'meta' for x in maps)
    assert torch.equal(found['positions'], torch.arange(7))


def test_a_number_that_depends_on_values_is_unknown():
    class Loud(nn.Module):
        def forward(self, x):
            return x.max().item(), x.shape[0]

    model = Loud()
    graph = fx.symbolic_trace(model).graph
    image = torch.rand(SIZE)
    shapes = run(ShapeRunner(model, image), graph)
    assert shapes['item'] is UNKNOWN and shapes['getitem'] == 1
    assert run(NodeRunner(model, image), graph)['item'] == image.max().item()


def test_what_shapes_do_not_tell_is_run():
    class Cut(nn.Module):
        def forward(self, x):
            return x[..., : int(x.sum().ceil().item()) % 5 + 2]

    class Owner(nn.Module):
        def __init__(self):
            super().__init__()
            self.cut = Cut()

        def forward(self, x):
            return self.cut(x).relu(), x.max().item()

    model, image = Owner(), torch.rand(SIZE)
    graph = Tracer(Owner).trace(model)
    annotate(graph, model, image)
    nodes = {node.name: node for node in graph.nodes}
    assert nodes['relu'].meta[SHAPE] == tuple(model.cut(image).shape)
    assert not nodes['item'].meta[HAS_CHANNELS]


def test_a_copy_of_shapes_has_no_values():
    model = Network()
    copy = shape_copy(model)
    for name, tensor in copy.state_dict().items():
        assert tensor.device.type == 'meta', name
        assert tensor.shape == model.state_dict()[name].shape, name
    assert all(t.device.type == 'cpu' for t in model.state_dict().values())
    assert list(dict(copy.named_parameters())) == list(
        dict(model.named_parameters())
    )


def test_tracing_computes_no_feature_map():
    """A detector's code asks for the parts of its tuples of maps."""

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(8, 2, 1)

        def forward(self, maps):
            return [self.conv(x) for x in maps]

    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.convs = nn.ModuleList(
                nn.Conv2d(8, 8, 3, stride=2, padding=1) for _ in range(4)
            )
            self.head = Head()

        def forward(self, x):
            x = self.stem(x)
            maps = []
            for conv in self.convs:
                x = conv(x)
                if x.shape[-1] > 1:
                    maps.append(x)
            return self.head(maps)

    ran, computed = [], []

    def record(module, args, output):
        if isinstance(output, Tensor):
            ran.append(module)
            if output.device.type != 'meta':
                computed.append(module)

    handle = nn.modules.module.register_module_forward_hook(record)
    try:
        analyzer = DMSChannelAnalyzer(demo_input=(1, 3, 16, 16))
        groups = analyzer.analyze_groups(Detector())
    finally:
        handle.remove()
    searched = [group.name for group in groups if not group.reason]
    assert searched == ['stem', 'convs.0']  # the head ties its inputs
    assert ran and not computed


def test_attributes_by_their_names():
    model = nn.Sequential(nn.Linear(2, 3))
    assert attribute(model, '0.weight') is model[0].weight
    assert attribute(model, '') is model  # passed on by its own code


def test_memory_that_runs_out_is_no_answer_of_a_function():
    def exhausted(x):
        raise RuntimeError('CUDA out of memory')

    def broken(x):
        raise RuntimeError('no such size')

    graph = fx.Graph()
    image = graph.placeholder('image')
    image.meta.update({SHAPE: (2, 4), DTYPE: torch.float32})
    image.meta[HAS_CHANNELS] = True
    runner = NodeRunner(nn.Module(), None)
    for function in (exhausted, broken):
        node = graph.call_function(function, (image,))
        if function is broken:
            assert try_function(node, [(image, 4)]) is None
            continue
        with pytest.raises(RuntimeError, match='^CUDA out of memory'):
            try_function(node, [(image, 4)])
        with pytest.raises(RuntimeError, match='^CUDA out of memory'):
            runner.value(node, {image: torch.zeros(2, 4)})
