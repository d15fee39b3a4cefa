"""Attentions of mmpretrain that are searched, and what they become."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from dms_mmrazor import Search
from dms_mmrazor.graph import count_macs
from dms_mmrazor.layers.attention import HEADS, attention_kind


def _forms():
    """Stock attentions, the forms of each, its input and its arguments."""
    from mmpretrain.models.backbones.xcit import XCA, ClassAttntion
    from mmpretrain.models.utils.attention import BEiTAttention, WindowMSAV2

    shared, mask = torch.rand(3, 5, 5), torch.rand(3, 4, 4)
    beit = dict(window_size=(2, 2), use_rel_pos_bias=True)
    return [
        (BEiTAttention(12, 3, **beit), 'BEiTAttention', 5, (shared,)),
        (
            BEiTAttention(12, 3, **beit, bias=True),
            'BEiTAttention',
            5,
            (shared,),
        ),
        (
            BEiTAttention(12, 3, None, False, bias=False),
            'BEiTAttention',
            5,
            (),
        ),
        (WindowMSAV2(12, (2, 2), 3), 'WindowMSAV2', 4, (mask,)),
        (WindowMSAV2(12, (2, 2), 3, qkv_bias=False), 'WindowMSAV2', 4, ()),
        (XCA(12, 3, qkv_bias=True), 'CrossCovariance', 5, ()),
        (ClassAttntion(12, 3, qkv_bias=True), 'ClassAttention', 5, ()),
    ]


def test_forms_compute_what_the_stock_ones_do():
    from dms_mmrazor.plugins import mmpretrain_attention as forms

    torch.manual_seed(0)
    for stock, name, tokens, given in _forms():
        for parameter in stock.parameters():
            nn.init.normal_(parameter)
        stock.eval()
        kind = attention_kind(stock)
        slim = deepcopy(stock)
        kind.make_slim(slim, kind.sizes(stock))
        assert type(slim).__name__ == f'Slim{name}'
        others = [slim]
        calling = getattr(forms, f'DMS{name}', None)
        if calling is not None:
            others.append(calling.convert_from(stock))
        x = torch.rand(6, tokens, 12)
        for other in others:
            expected = stock(x, *given)
            torch.testing.assert_close(other(x, *given), expected)


class _Net(nn.Module):
    """A transformer of one layer whose attention is given."""

    def __init__(self, attention):
        super().__init__()
        self.embed = nn.Linear(3, 12)
        self.norm = nn.LayerNorm(12)
        self.attention = attention
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.attention(self.norm(x))
        return self.head(x.mean(1))


@pytest.mark.parametrize('number', range(7))
def test_each_is_searched_exported_and_trained(number):
    torch.manual_seed(number)
    attention, _, tokens, _ = _forms()[number]
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.rand(6, tokens, 3)
    search = Search(_Net(attention), x, 0.7, total_steps=8)
    names = {unit.name for unit in search.mutator.searched_units}
    assert f'attention.{HEADS}' in names
    assert 'embed' in names
    optimizer = torch.optim.SGD(search.model.parameters(), lr=0.1)
    for _ in range(8):
        search.model(torch.rand(6, tokens, 3)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        search.step()
    subnet = search.export(divisor=1)
    assert subnet.difference < 1e-5
    row = subnet.structure.resources
    assert row['macs']['subnet'] == count_macs(subnet.model, (1, tokens, 3))
    sizes = [p.numel() for p in subnet.model.parameters()]
    assert row['params']['subnet'] == sum(sizes)
    subnet.model.train()(x).sum().backward()
