import copy

import pytest
import torch
from mmcv.cnn.bricks.wrappers import Conv2d as MMCVConv2d
from mmcv.cnn.bricks.wrappers import Linear as MMCVLinear
from torch import nn

from dms_mmrazor.core import FlatTopk
from dms_mmrazor.layers import (
    DMSBatchNorm2d,
    DMSConv2d,
    DMSLinear,
    masked_form,
    replace_with_dynamic,
)
from dms_mmrazor.models.mutables import (
    DMSChannelContainer,
    DMSMutableChannel,
    DMSMutableDepth,
    MaskTable,
    TopkOperator,
)
from dms_mmrazor.supernet.plain import plain_copy

LAYERS = [
    lambda: nn.Conv2d(6, 4, 3, padding=1),
    lambda: nn.Conv2d(6, 4, 3, groups=2, bias=False),
    lambda: nn.Conv2d(6, 6, 3, groups=6, padding_mode='circular', padding=1),
    lambda: MMCVConv2d(6, 4, 1),
    lambda: nn.Linear(6, 4),
    lambda: MMCVLinear(6, 4, bias=False),
    lambda: nn.BatchNorm2d(6),
    lambda: nn.ConvTranspose2d(6, 4, 3, stride=2, output_padding=1),
]


def example(layer):
    generator = torch.Generator().manual_seed(0)
    shape = (3, 6) if isinstance(layer, nn.Linear) else (3, 6, 5, 5)
    return torch.randn(*shape, generator=generator)


def mutable(importance):
    """A searched mutable, its operators and its masks."""
    topk = FlatTopk([len(importance)])
    topk.set_importance_(torch.tensor(importance, dtype=torch.float32))
    table = MaskTable()
    channel = DMSMutableChannel(len(importance))
    channel.operator = TopkOperator(topk, table, 0)
    return channel


def attach(layer, attr, channel):
    container = DMSChannelContainer(channel.num_channels)
    container.register_mutable(channel, 0, channel.num_channels)
    layer.register_mutable_attr(attr, container)


@pytest.mark.parametrize('make', LAYERS)
def test_conversion_keeps_all_state(make):
    plain = make()
    plain.train(False)
    dynamic = masked_form(type(plain)).convert_from(plain)
    assert list(dynamic.state_dict()) == list(plain.state_dict())
    for name, parameter in plain.named_parameters():
        assert dict(dynamic.named_parameters())[name] is parameter
    for name, buffer in plain.named_buffers():
        assert dict(dynamic.named_buffers())[name] is buffer
    assert dynamic.training is False
    assert torch.equal(dynamic(example(plain)), plain(example(plain)))


@pytest.mark.parametrize('make', LAYERS)
def test_conversion_keeps_forward_hooks(make):
    plain = make()
    plain.register_forward_hook(lambda module, args, output: output * 0)
    dynamic = masked_form(type(plain)).convert_from(plain)
    assert dynamic(example(plain)).abs().sum() == 0


@pytest.mark.parametrize('make', LAYERS)
def test_plain_op_is_the_layer_before(make):
    plain = make()
    image = example(plain)
    dynamic = masked_form(type(plain)).convert_from(plain)
    back = dynamic.to_plain_op()
    assert type(back).__module__.startswith('torch.nn')
    assert isinstance(plain, type(back))
    assert back.weight is plain.weight
    assert not list(back.children())
    assert torch.equal(back(image), plain(image))


@pytest.mark.parametrize(
    'make', [LAYERS[0], LAYERS[4]], ids=['conv', 'linear']
)
def test_static_op_equals_the_masked_op(make):
    plain = make()
    image = example(plain)
    dynamic = masked_form(type(plain)).convert_from(copy.deepcopy(plain))
    inputs = mutable([1, 5, 2, 6, 4, 3])
    outputs = mutable([3, 1, 2, 4])
    attach(dynamic, 'in_channels', inputs)
    attach(dynamic, 'out_channels', outputs)
    inputs.current_choice = 3
    outputs.current_choice = 2
    static = dynamic.to_static_op()
    assert type(static) is type(plain)
    assert static.weight.shape[:2] == (2, 3)
    expected = dynamic(image)[:, [0, 3]]
    actual = static(image[:, [1, 3, 4]])
    torch.testing.assert_close(actual, expected)
    # The masked op itself is unchanged.
    assert torch.equal(dynamic.weight, plain.weight)


def test_static_norm_keeps_the_channels_of_its_unit():
    norm = nn.BatchNorm2d(4).eval()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.running_mean)
    dynamic = DMSBatchNorm2d.convert_from(copy.deepcopy(norm))
    channel = mutable([1, 4, 3, 2])
    attach(dynamic, 'out_channels', channel)
    channel.current_choice = 2
    image = torch.randn(2, 4, 3, 3)
    static = dynamic.to_static_op()
    torch.testing.assert_close(static(image[:, 1:3]), norm(image)[:, 1:3])


def test_masks_train_through_a_layer():
    layer = DMSLinear.convert_from(nn.Linear(4, 2))
    channel = mutable([1, 2, 3, 4])
    attach(layer, 'in_channels', channel)
    topk, table = channel.operator.topk, channel.operator.table
    topk.num_updates.fill_(1)
    topk.pruning_ratio.data.fill_(0.4)
    table.show(topk.soft_mask(), topk)
    layer(torch.ones(1, 4)).sum().backward()
    assert topk.pruning_ratio.grad.abs() > 0
    assert layer.weight.grad.abs().sum() > 0


def test_depth_of_a_conv():
    plain = nn.Conv2d(6, 6, 1)
    layer = DMSConv2d.convert_from(copy.deepcopy(plain))
    depth = DMSMutableDepth(3)
    topk, table = FlatTopk([3]), MaskTable()
    depth.operator = TopkOperator(topk, table, 0)
    layer.attach_depth(depth, 1)
    image = example(plain)
    assert torch.equal(layer(image), plain(image))
    table.show(torch.tensor([1.0, 0.5, 1.0]), topk)
    torch.testing.assert_close(layer(image), 0.5 * plain(image))


def test_stock_constructor_works():
    assert DMSConv2d(3, 4, 1)(torch.rand(1, 3, 2, 2)).shape[1] == 4
    assert DMSLinear(3, 4)(torch.rand(2, 3)).shape == (2, 4)
    assert DMSBatchNorm2d(3)(torch.rand(2, 3, 2, 2)).shape[1] == 3


def test_a_shared_layer_stays_shared():
    shared = nn.Conv2d(3, 4, 1)
    model = nn.ModuleDict(
        {
            'a': nn.Sequential(shared, nn.BatchNorm2d(4)),
            'b': nn.Sequential(shared, nn.BatchNorm2d(4)),
            'c': nn.Sequential(nn.Conv2d(3, 4, 1)),
        }
    )
    layer = replace_with_dynamic(model, 'a.0')
    assert type(layer) is DMSConv2d
    assert model['a'][0] is layer and model['b'][0] is layer
    assert type(model['c'][0]) is nn.Conv2d
    assert set(model.state_dict()) >= {'a.0.weight', 'b.0.weight'}
    plain = plain_copy(model)
    assert type(plain['a'][0]) is nn.Conv2d
    assert plain['a'][0] is plain['b'][0] is not layer


def test_replacing_twice_changes_nothing():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1)), nn.ReLU())
    first = replace_with_dynamic(model, '0.0')
    assert isinstance(first, DMSConv2d)
    assert replace_with_dynamic(model, '0.0') is first is model[0][0]
