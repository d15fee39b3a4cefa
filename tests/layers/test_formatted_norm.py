"""Layer norms of someone's own, told by what they compute."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dms_mmrazor import Search
from dms_mmrazor.layers import kind_of, masked_form, narrow_layer

IMAGES = (2, 3, 8, 8)


class Norm(nn.Module):
    """As in the code of ConvNeXt, and in that of all who copied it."""

    def __init__(self, dim, eps=1e-6, data_format='channels_last'):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps
        self.data_format = data_format
        if data_format not in ('channels_last', 'channels_first'):
            raise NotImplementedError
        self.normalized_shape = (dim,)

    def forward(self, x):
        if self.data_format == 'channels_last':
            return F.layer_norm(
                x, self.normalized_shape, self.weight, self.bias, self.eps
            )
        mean = x.mean(1, keepdim=True)
        var = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(var + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class Extended(nn.LayerNorm):
    """As that of ``transformers``, which is torch's as well."""

    def __init__(self, dim, *, eps=1e-6, data_format='channels_last'):
        super().__init__(dim, eps=eps)
        self.data_format = data_format

    def forward(self, x):
        if self.data_format == 'channels_first':
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return super().forward(x)


class Doubled(Norm):
    """Something else."""

    def forward(self, x):
        return 2 * super().forward(x)


class Block(nn.Module):
    """A block whose last layer is such a norm."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = Norm(width, data_format='channels_first')
        self.first = nn.Linear(width, 2 * width)
        self.inner = Norm(2 * width)
        self.last = nn.Linear(2 * width, width)

    def forward(self, x):
        x = x + self.norm(self.conv(x))
        y = self.inner(self.first(x.permute(0, 2, 3, 1))).relu()
        return x + self.last(y).permute(0, 3, 1, 2)


def _network(norm=Norm):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        norm(8, data_format='channels_first'),
        nn.Sequential(Block(8), Block(8), Block(8)),
        nn.Conv2d(8, 4, 1),
    )
    for module in net.modules():
        if isinstance(module, (Norm, Extended)):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
    return net


@pytest.mark.parametrize('data_format', ['channels_last', 'channels_first'])
def test_a_cut_norm_normalizes_what_is_kept(data_format):
    norm = Norm(6, data_format=data_format)
    dim = 1 if data_format == 'channels_first' else -1
    kept, x = torch.tensor([0, 2, 5]), torch.randn(2, 6, 6, 6)
    expected = Norm(3, data_format=data_format)(x.index_select(dim, kept))
    narrow_layer(norm, kept, kept)
    assert norm.normalized_shape == (3,)
    assert torch.equal(norm(x.index_select(dim, kept)), expected)


def test_a_class_that_computes_something_else_takes_no_masks():
    assert masked_form(Norm) is not None
    assert kind_of(Doubled(4)) is kind_of(Norm(4))
    assert masked_form(Doubled) is None
    assert kind_of(nn.Identity()) is None


@pytest.mark.parametrize('kind', [Norm, Extended])
def test_a_network_of_them_is_searched_with_its_depth(kind):
    search = Search(_network(kind), torch.rand(IMAGES), 0.5, 2)
    report = search.mutator.report()
    assert not report.unsearched
    assert [number for _, number in report.stages] == [3]
    optimizer = torch.optim.SGD(search.model.parameters(), lr=0.01)
    for _ in range(2):
        search.model(torch.rand(IMAGES)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        search.step()
    subnet = search.export(divisor=1)
    assert subnet.difference <= 1e-5
    norm = subnet.model[1]
    assert type(norm) is kind and norm.normalized_shape == norm.weight.shape
