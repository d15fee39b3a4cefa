"""A kind of layer is one file: here one that no library has."""

import os.path as osp
import sys

import pytest
import torch
from torch import nn

from dms_mmrazor import Search
from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import count_macs
from dms_mmrazor.latency.measure import layer_kinds
from dms_mmrazor.layers import (
    acts_alone,
    channels_of,
    is_layer,
    is_norm,
    is_weighted,
    kind_of,
    masked_form,
    narrow_layer,
)

sys.path.insert(0, osp.join(osp.dirname(__file__), '..'))
import gated_layer  # noqa: E402

SIZE = (1, 3, 8, 8)


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        gated_layer.Gated(16, 24),
        nn.Linear(24, 5),
    )


FULL = 64 * 27 * 16 + 2 * 16 * 24 + 24 * 5


def test_a_kind_of_layer_is_one_file():
    with open(gated_layer.__file__, encoding='utf-8') as file:
        assert len(file.readlines()) < 80
    assert count_macs(net(), SIZE) == FULL
    model = net()
    plain_texts = layer_kinds(net().eval(), torch.rand(SIZE))
    assert plain_texts['4'] == 'Gated, 16 to 24, 1'
    search = Search(model, torch.rand(SIZE), {'macs': 0.5}, 3)
    report = search.mutator.report()
    assert dict(report.units) == {'0': 16, '4': 24}
    assert [layer.name for layer in report.layers] == ['0', '4', '5']
    assert not report.unsearched
    assert isinstance(model[4], gated_layer.MaskedGated)
    assert search.resources()['macs'] == FULL
    widths = {layer.name: layer for layer in search.mutator.layer_widths}
    assert widths['4'].channels == (16, 24)
    for _ in range(3):
        search.model(torch.rand(4, *SIZE[1:])).square().sum().backward()
        search.step()
    subnet = search.export(divisor=1)
    gated = subnet.model[4]
    assert type(gated) is gated_layer.Gated
    assert gated.gate.shape == gated.value.shape != (24, 16)
    assert subnet.difference <= 1e-5
    macs = subnet.structure.resources['macs']['subnet']
    assert macs == count_macs(subnet.model, SIZE) <= 0.5 * FULL


def test_its_weights_are_scored_together():
    settings = dict(importance=dict(metric='l1'))
    search = Search(net(), torch.rand(SIZE), 0.5, 3, mutator=settings)
    layer = search.model[4]
    scores = search.mutator.static_scores()[16:]
    both = layer.value.abs().sum(1) + layer.gate.abs().sum(1)
    torch.testing.assert_close(scores, both.detach())


@pytest.mark.parametrize(
    'layer, mixes, passes, alone',
    [
        (nn.Conv1d(4, 4, 1), True, False, False),
        (nn.Conv2d(4, 8, 1, groups=4), True, False, True),
        (nn.Linear(4, 4), True, False, False),
        (nn.BatchNorm1d(4), False, True, True),
        (nn.GroupNorm(2, 4), False, True, True),
        (nn.GroupNorm(1, 4), False, True, False),
        (nn.LayerNorm(4), False, True, False),
        (nn.PReLU(4), False, True, True),
        (nn.PReLU(), False, False, False),
        (nn.SiLU(), False, False, False),
        (nn.MultiheadAttention(4, 2), False, False, False),
        (nn.LSTM(4, 4), False, False, False),
        (None, False, False, False),
    ],
)
def test_what_a_layer_is(layer, mixes, passes, alone):
    assert is_weighted(layer) is mixes
    assert is_norm(layer) is passes
    assert is_layer(layer) is (mixes or passes)
    assert acts_alone(layer) is alone
    if mixes or passes:
        assert channels_of(layer, True) == 4
        assert kind_of(layer) is not None


class OwnConv(nn.Conv2d):
    """A convolution that computes something else."""

    def forward(self, x):
        return super().forward(x) / self.weight.std()


def test_a_class_that_computes_something_else_takes_no_masks():
    assert is_weighted(OwnConv(4, 8, 1))
    assert channels_of(OwnConv(4, 8, 1), False) == 8
    assert masked_form(nn.Conv2d) is not None
    assert masked_form(OwnConv) is None


@pytest.mark.parametrize('stock', [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_a_class_that_computes_like_the_stock_one_takes_masks(stock):
    class Named(stock):
        """A convolution with defaults of its own."""

        def __init__(self, read, given, middle=None, padding=1):
            super().__init__(read, given, 3, padding=padding, bias=False)

    masked = masked_form(Named)
    assert masked is not None and issubclass(masked, Named)
    layer = Named(4, 8)
    x = torch.rand(2, 4, *[5] * len(layer.kernel_size))
    assert torch.equal(masked.convert_from(layer)(x), layer(x))


def test_what_is_no_layer_is_not_cut():
    with pytest.raises(DMSError, match='LSTM'):
        narrow_layer(nn.LSTM(4, 4), None, None)
