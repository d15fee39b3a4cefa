import pytest
import torch

from dms_mmrazor.layers import narrow_layer
from dms_mmrazor.layers.block import (
    block_kind_of,
    refresh_attributes,
    repeated_slice,
)
from dms_mmrazor.layers.block_lists import remove_blocks


@pytest.fixture
def layer(zoo):
    """A C2f with three blocks and lively norms, in a model."""
    from mmyolo.models.layers import CSPLayerWithTwoConv

    model = torch.nn.Sequential(CSPLayerWithTwoConv(6, 12, num_blocks=3))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def test_what_a_block_gives(layer):
    from dms_mmrazor.plugins.mmyolo import SplitLayerKind, split_sizes

    assert isinstance(block_kind_of(layer[0]), SplitLayerKind)
    assert block_kind_of(layer) is None
    assert split_sizes(layer[0]) == (6, 6)
    assert repeated_slice(layer, '0.blocks.0') == ('0.final_conv.conv', 12, 18)
    assert repeated_slice(layer, '0.blocks.2') == ('0.final_conv.conv', 24, 30)


def test_other_blocks_give_nothing():
    model = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)))
    assert repeated_slice(model, '0.0') is None


@pytest.mark.parametrize('removed', [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_removed_blocks_are_silent_blocks(layer, removed):
    silent = [layer[0].blocks[index].conv2 for index in removed]
    handles = [
        module.register_forward_hook(lambda module, args, out: out * 0)
        for module in silent
    ]
    x = torch.rand(2, 6, 5, 5)
    shared = layer[0].final_conv.conv.weight
    before = shared.detach().clone()
    with torch.no_grad():
        expected = layer(x)
        for handle in handles:
            handle.remove()
        remove_blocks(layer, [f'0.blocks.{index}' for index in removed])
        found = layer(x)
    assert len(layer[0].blocks) == 3 - len(removed)
    assert layer[0].final_conv.conv.in_channels == 30 - 6 * len(removed)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(shared, before)


@pytest.mark.parametrize('halves', [(4, 4), (5, 2)])
def test_a_narrowed_layer_splits_where_it_should(layer, halves):
    """Against the full layer with the other channels set to zero."""
    module = layer[0]
    first, second = halves
    kept = torch.tensor([*range(first), *range(6, 6 + second)])
    own = torch.arange(second)
    columns = torch.cat(
        [kept, *(own + start for start in range(12, 30, 6))],
    )
    x = torch.rand(1, 6, 4, 4)
    with torch.no_grad():
        gone = [c for c in range(30) if c not in columns]
        module.final_conv.conv.weight[:, gone] = 0
        for block in module.blocks:
            block.conv1.conv.weight[:, second:] = 0
        expected = layer(x)
    narrow_layer(module.main_conv.conv, kept, None)
    narrow_layer(module.main_conv.bn, kept, None)
    for block in module.blocks:
        narrow_layer(block.conv1.conv, None, own)
        narrow_layer(block.conv2.conv, own, None)
        narrow_layer(block.conv2.bn, own, None)
    narrow_layer(module.final_conv.conv, None, columns)
    refresh_attributes(layer)
    from dms_mmrazor.plugins.mmyolo import split_sizes

    assert split_sizes(module) == halves
    is_stock = type(module).__module__.startswith('mmyolo.')
    assert is_stock is (first == second)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)
