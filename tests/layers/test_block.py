"""A kind of block is one file: here an attention that no library has."""

import os.path as osp
import pickle
import sys
from copy import deepcopy

import pytest
import torch
from torch import nn

from dms_mmrazor import Search
from dms_mmrazor.graph import count_macs
from dms_mmrazor.layers import is_attention
from dms_mmrazor.layers.block import block_kind_of, known_blocks
from dms_mmrazor.layers.kind import narrow_layer

sys.path.insert(0, osp.join(osp.dirname(__file__), '..'))
import rectified_attention  # noqa: E402

ATTENTION = rectified_attention.RectifiedAttention
SIZE = (1, 3, 8, 8)
TOKENS = 16


class Block(nn.Module):
    """A residual attention in front of a head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 12, 2, stride=2)
        self.attn = ATTENTION(12, 3)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.head((x + self.attn(x)).mean(1))


FULL = TOKENS * (12 * 12 + 4 * 12 * 12) + 2 * TOKENS**2 * 12 + 5 * 12


def test_a_kind_of_block_is_one_file():
    with open(rectified_attention.__file__, encoding='utf-8') as file:
        assert len(file.readlines()) < 80
    torch.manual_seed(0)
    model = Block()
    assert is_attention(model.attn)
    assert [name for name, _, _ in known_blocks(model)] == ['attn']
    assert count_macs(model, SIZE) == FULL
    search = Search(model, torch.rand(SIZE), {'macs': 0.5}, 3)
    report = search.mutator.report()
    heads = {'attn.heads': 3, 'attn.qk_dims': 4, 'attn.v_dims': 4}
    assert dict(report.units) == {'embed': 12, **heads}
    assert search.resources()['macs'] == FULL
    for _ in range(3):
        search.model(torch.rand(4, *SIZE[1:])).square().sum().backward()
        search.step()
    subnet = search.export(divisor=1)
    slim = subnet.model.attn
    assert type(slim) is rectified_attention.SlimRectifiedAttention
    assert subnet.difference <= 1e-5
    macs = subnet.structure.resources['macs']['subnet']
    assert macs == count_macs(subnet.model, SIZE) <= 0.5 * FULL


def test_what_derives_from_an_attention_may_be_another():
    class Other(ATTENTION):
        pass

    other = Other(8, 2)
    assert not is_attention(other)
    assert block_kind_of(other) is None
    assert not is_attention(None)
    gated = deepcopy(ATTENTION(8, 2))
    gated.gate = nn.Linear(8, 2)
    assert not is_attention(gated)


def mmpretrain_attention():
    from mmpretrain.models.utils.attention import MultiheadAttention

    return MultiheadAttention(12, 3)


def timm_attention():
    pytest.importorskip('timm')
    from timm.models.pvt_v2 import Attention

    return Attention(12, num_heads=3)


@pytest.mark.parametrize(
    'make',
    [
        lambda: ATTENTION(12, 3),
        mmpretrain_attention,
        lambda: nn.MultiheadAttention(12, 3),
        timm_attention,
    ],
)
def test_an_attention_changes_its_class_only_where_it_is_cut(make):
    stock = make()
    kind = block_kind_of(stock)
    for holder in kind.holders(stock).values():
        holder.narrow(torch.arange(holder.channels))
    kind.refresh(stock, stock)
    assert type(stock) is type(make())
    if 'in_proj_weight' in kind.holders(stock):
        kind.holders(stock)['in_proj_weight'].narrow(torch.arange(9))
    else:  # its heads are whole, but no longer what follows from 9 channels
        for name in kind.input_layers:
            narrow_layer(stock.get_submodule(name), None, torch.arange(9))
    kind.refresh(stock, stock)
    assert type(stock) is kind.slim
    assert kind.sizes(stock) == {'heads': 3, 'qk_dims': 4, 'v_dims': 4}


class Foreign(nn.Module):
    """Self-attention as everybody writes it."""

    def __init__(self, channels, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x):
        batch, tokens, width = x.shape
        size = (batch, tokens, 3, self.num_heads, width // self.num_heads)
        q, k, v = self.qkv(x).reshape(size).permute(2, 0, 3, 1, 4)
        x = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, width))


def test_what_an_attention_of_anybodys_reads_is_searched():
    torch.manual_seed(0)
    model = Block()
    model.attn = Foreign(12, 3)
    images = torch.rand(4, *SIZE[1:])
    search = Search(model, images, {'macs': 0.7}, 3)
    report = search.mutator.report()
    assert dict(report.units) == {'embed': 12}
    for _ in range(3):
        search.model(images).square().sum().backward()
        search.step()
    subnet = search.export(divisor=1)
    attn = subnet.model.attn
    assert isinstance(attn, Foreign)
    assert attn.qkv.in_features == attn.proj.out_features < 12
    assert attn.proj.in_features == 12
    assert subnet.difference <= 1e-5
    assert list(attn.state_dict()) == list(Foreign(12, 3).state_dict())
    for copied in (deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        same = copied(subnet.model)
        torch.testing.assert_close(same(images), subnet.model(images))
    subnet.model(images).sum().backward()
    assert all(p.grad is not None for p in attn.parameters())


class Own(Foreign):
    """One that knows its dims, and looks at its input twice."""

    def forward(self, x):
        rows = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = rows.permute(2, 0, 3, 1, 4)
        out = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return x + self.proj(out.transpose(1, 2).flatten(2))


def test_an_attention_that_runs_on_what_it_reads_is_left_alone():
    torch.manual_seed(0)
    model = Block()
    model.attn = Own(12, 3)
    images = torch.rand(4, *SIZE[1:])
    search = Search(model, images, {'macs': 0.7}, 1)
    search.model(images).square().sum().backward()
    search.step()
    subnet = search.export(divisor=1)
    assert subnet.difference <= 1e-5
    assert not subnet.model.attn.needs_width
    assert subnet.model.attn.qkv.in_features < 12
