"""torch's attention as the masked and the cut one compute it."""

import copy

import pytest
import torch
from torch import nn

from dms_mmrazor.layers import named_parts, replace_with_dynamic
from dms_mmrazor.layers.multihead import (
    DMSMultiheadAttention,
    SlimMultiheadAttention,
    is_multihead,
)


def as_dynamic(attention):
    model = nn.Sequential(attention)
    replace_with_dynamic(model, '0.out_proj')
    return replace_with_dynamic(model, '0')


def as_slim(attention):
    attention.__class__ = SlimMultiheadAttention
    return attention


CALLS = [
    dict(),
    dict(need_weights=False),
    dict(average_attn_weights=False),
    dict(key_padding_mask=torch.tensor([[False] * 5 + [True] * 2] * 3)),
    dict(attn_mask=torch.ones(4, 7).triu(1).bool(), need_weights=False),
    dict(attn_mask=torch.randn(12, 4, 7)),
    dict(
        attn_mask=torch.ones(4, 7).triu(2).bool(),
        key_padding_mask=torch.tensor([[False] * 6 + [True]] * 3),
        need_weights=False,
    ),
]


@pytest.mark.parametrize('make', [as_dynamic, as_slim])
@pytest.mark.parametrize('batch_first', [True, False])
@pytest.mark.parametrize('kwargs', CALLS)
def test_it_equals_the_stock_module(kwargs, batch_first, make):
    torch.manual_seed(0)
    stock = nn.MultiheadAttention(8, 4, batch_first=batch_first)
    nn.init.normal_(stock.in_proj_bias)
    query, key, value = (torch.randn(3, n, 8) for n in (4, 7, 7))
    if not batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    expected = stock(query, key, value, **kwargs)
    own = make(copy.deepcopy(stock))
    assert type(own) is not type(stock)
    found = own(query, key, value, **kwargs)
    for a, b in zip(found, expected):
        assert (a is None) == (b is None)
        if b is not None:
            torch.testing.assert_close(a, b)
    assert list(own.state_dict()) == list(stock.state_dict())


@pytest.mark.parametrize('make', [as_dynamic, as_slim])
def test_one_image_of_no_batch(make):
    stock = nn.MultiheadAttention(8, 2)
    x = torch.randn(5, 8)
    expected = stock(x, x, x)
    found = make(copy.deepcopy(stock))(x, x, x)
    torch.testing.assert_close(found, expected)


def test_dropout_belongs_to_training():
    stock = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    own = as_slim(copy.deepcopy(stock))
    x = torch.randn(2, 5, 8)
    outputs = []
    for module in (stock, own):
        torch.manual_seed(0)
        outputs.append(module.train()(x, x, x)[1])
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(own.eval()(x, x, x), stock.eval()(x, x, x))


def test_a_plain_module_comes_back():
    attention = nn.MultiheadAttention(8, 2)
    dynamic = as_dynamic(attention)
    assert isinstance(dynamic, DMSMultiheadAttention)
    plain = dynamic.to_plain_op()
    assert type(plain) is nn.MultiheadAttention
    assert plain.in_proj_weight is attention.in_proj_weight
    assert plain._qkv_same_embed_dim
    back = dynamic.out_proj.to_plain_op()
    assert type(back) is type(nn.MultiheadAttention(8, 2).out_proj)


def test_what_keeps_everything_stays_stock():
    model = nn.Sequential(nn.MultiheadAttention(8, 2))
    parts = named_parts(model)
    for name, size in (('heads', 2), ('qk_dims', 4), ('in_proj_weight', 8)):
        parts[f'0.{name}'].narrow(torch.arange(size))
    assert type(model[0]) is nn.MultiheadAttention
    parts['0.heads'].narrow(torch.tensor([1]))
    parts['0.qk_dims'].narrow(torch.tensor([0, 2, 3]))
    parts['0.in_proj_weight'].narrow(torch.arange(5))
    assert type(model[0]) is SlimMultiheadAttention
    assert model[0].in_proj_weight.shape == (3 + 3 + 4, 5)
    assert model[0].in_proj_bias.shape == (10,)
    assert model[0].out_proj.weight.shape == (8, 4)
    assert is_multihead(model[0])


@pytest.mark.parametrize(
    'kwargs', [dict(kdim=6), dict(add_bias_kv=True), dict(add_zero_attn=True)]
)
def test_those_that_are_not_followed(kwargs):
    assert not is_multihead(nn.MultiheadAttention(8, 2, **kwargs))
