"""Layers that treat every channel alone need no masks."""

import pytest
import torch
from mmcv.cnn import Scale
from mmengine.model import BaseModel
from torch import nn
from torchvision.models.convnext import LayerNorm2d

from dms_mmrazor.errors import DMSError
from dms_mmrazor.layers import narrow_layer
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.search.export import export_subnet

CHANNELS = 16


class Net(BaseModel):
    """Some layers between two convolutions of one norm each."""

    def __init__(self, *body: nn.Module, last: int = CHANNELS) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.body = nn.Sequential(*body)
        self.head = nn.Conv2d(last, 4, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.norm(self.stem(inputs)).relu()
        y = self.head(self.body(x))
        return dict(loss=y.square().mean()) if mode == 'loss' else y


def depthwise(times=1):
    return nn.Conv2d(
        CHANNELS,
        times * CHANNELS,
        3,
        padding=1,
        groups=CHANNELS,
        bias=False,
    )


def search(net):
    cfg = dict(type='DMSMutator', parse_cfg=dict(demo_input=(1, 3, 16, 16)))
    return DMSAlgorithm(net, mutator=cfg)


@pytest.mark.parametrize('times', [1, 2])
def test_the_norm_behind_a_depthwise_conv_sees_no_second_mask(times):
    """Soft masks of 0.5 to 1 must not change the variance that it keeps."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(times * CHANNELS)
    algorithm = search(Net(depthwise(times), norm, last=times * CHANNELS))
    topk = algorithm.mutator.topk
    topk.num_updates.fill_(1)
    topk.importance.uniform_()
    topk.pruning_ratio.data.fill_(0.5)
    norm = algorithm.architecture.body[1]
    norm.momentum = 1.0
    image = torch.randn(4, 3, 16, 16)
    algorithm.train()
    algorithm(image, mode='loss')
    net = algorithm.architecture
    with torch.no_grad():
        x = net.norm(net.stem(image)).relu()
        seen = nn.functional.conv2d(
            x, net.body[0].weight, padding=1, groups=CHANNELS
        )
    expected = seen.var((0, 2, 3))
    assert torch.allclose(norm.running_var, expected, rtol=1e-4)


def without_bias():
    """As the norms of some transformers."""
    norm = nn.GroupNorm(1, CHANNELS)
    norm.bias = None
    return norm


@pytest.mark.parametrize(
    'layer, units',
    [
        (lambda: nn.GroupNorm(4, CHANNELS), 4),
        (lambda: nn.GroupNorm(8, CHANNELS, affine=False), 8),
        (lambda: nn.InstanceNorm2d(CHANNELS, affine=True), CHANNELS),
        (lambda: nn.PReLU(CHANNELS), CHANNELS),
        (lambda: nn.PReLU(), CHANNELS),
        (lambda: nn.GroupNorm(1, CHANNELS), CHANNELS),
        (without_bias, CHANNELS),
        (lambda: LayerNorm2d(CHANNELS), CHANNELS),
        (lambda: Scale(2.0), CHANNELS),
    ],
)
def test_they_are_cut_with_their_channels(layer, units, randomize_structure):
    algorithm = search(Net(layer()))
    (unit,) = algorithm.mutator.units
    assert unit.num_channels == units
    choices = randomize_structure(algorithm.mutator)
    subnet = export_subnet(algorithm, divisor=1)
    assert subnet.difference <= 1e-5
    params = sum(p.numel() for p in subnet.model.parameters())
    assert algorithm.mutator.resource_of('params', choices) == params


def test_two_group_norms_keep_what_is_whole_in_both():
    norms = nn.GroupNorm(8, CHANNELS), nn.GroupNorm(2, CHANNELS)
    (unit,) = search(Net(*norms)).mutator.units
    assert unit.num_channels == 2


def test_a_group_norm_loses_no_half_groups():
    with pytest.raises(DMSError, match='whole groups'):
        narrow_layer(nn.GroupNorm(4, CHANNELS), torch.arange(6), None)
