import copy

import pytest
import torch
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.layers import channels_of, narrow_layer


def images(layer, generator=0):
    torch.manual_seed(generator)
    return torch.randn(2, channels_of(layer, True), 5, 5)


def zero_except(image, kept):
    mask = torch.zeros(image.shape[1])
    mask[kept] = 1
    return image * mask.view(1, -1, 1, 1)


@pytest.mark.parametrize(
    'layer, outputs, inputs, groups',
    [
        (nn.Conv2d(6, 4, 3), [0, 2], [1, 2, 5], 1),
        (nn.Conv2d(6, 4, 3, bias=False), None, [4], 1),
        (nn.Conv2d(6, 4, 3), [3], None, 1),
        # Depthwise: each group keeps all or nothing.
        (nn.Conv2d(6, 6, 3, groups=6), [0, 3, 4], [0, 3, 4], 3),
        (nn.Conv2d(3, 6, 3, groups=3), [0, 1, 4, 5], [0, 2], 2),
        # Groups of equal size.
        (nn.Conv2d(8, 4, 3, groups=2), [1, 2], [0, 1, 6, 7], 2),
        (nn.Conv2d(8, 4, 3, groups=2), [2, 3], [4, 5, 6], 1),
        (nn.ConvTranspose2d(6, 4, 3), [0, 2], [1, 2, 5], 1),
        (nn.ConvTranspose2d(6, 6, 2, 2, groups=6), [0, 3], [0, 3], 2),
        (nn.ConvTranspose2d(8, 4, 3, groups=2), [1, 2], [0, 1, 6, 7], 2),
    ],
)
def test_conv_equals_the_masked_one(layer, outputs, inputs, groups):
    image = images(layer)
    ins = list(range(layer.in_channels)) if inputs is None else inputs
    outs = list(range(layer.out_channels)) if outputs is None else outputs
    expected = layer(zero_except(image, ins))[:, outs]
    narrow = narrow_layer(
        copy.deepcopy(layer),
        None if outputs is None else torch.tensor(outputs),
        None if inputs is None else torch.tensor(inputs),
    )
    torch.testing.assert_close(narrow(image[:, ins]), expected)
    assert narrow.groups == groups
    assert (narrow.in_channels, narrow.out_channels) == (len(ins), len(outs))


@pytest.mark.parametrize('trains', [True, False])
def test_parameters_stay_parameters(trains):
    layer = nn.Linear(5, 4).requires_grad_(trains)
    narrow_layer(layer, torch.tensor([0, 2]), torch.tensor([4]))
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.weight.requires_grad is trains
    assert (layer.in_features, layer.out_features) == (1, 2)
    assert layer.bias.shape == (2,)


@pytest.mark.parametrize('kwargs', [{}, dict(affine=False)])
@pytest.mark.parametrize('side', [0, 1])
def test_norm(kwargs, side):
    norm = nn.BatchNorm2d(4, **kwargs).eval()
    nn.init.normal_(norm.running_mean)
    image = torch.randn(2, 4, 3, 3)
    expected = norm(image)[:, [1, 3]]
    kept = [None, None]
    kept[side] = torch.tensor([1, 3])
    narrow_layer(norm, *kept)
    assert norm.num_features == 2
    torch.testing.assert_close(norm(image[:, [1, 3]]), expected)


@pytest.mark.parametrize(
    'outputs, inputs',
    [([0, 1, 2], None), (None, [0, 1, 2, 4]), ([0, 1], [4, 5])],
)
def test_unequal_groups_are_an_error(outputs, inputs):
    layer = nn.Conv2d(8, 4, 3, groups=2)
    kept = [None if k is None else torch.tensor(k) for k in (outputs, inputs)]
    with pytest.raises(DMSError, match='group'):
        narrow_layer(layer, *kept)


def test_other_layers_are_an_error():
    with pytest.raises(DMSError, match='Embedding'):
        narrow_layer(nn.Embedding(4, 4), torch.tensor([0]), None)
