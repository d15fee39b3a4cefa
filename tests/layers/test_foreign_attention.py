"""Attentions of anybody's that an exported model gives a form."""

import os.path as osp
import sys
from copy import deepcopy

import pytest
import torch
from torch import nn

from dms_mmrazor import Search, apply_structure
from dms_mmrazor.layers.foreign_attention import (
    ReadsFewer,
    fit_foreign_attentions,
)
from dms_mmrazor.subnet.onnx_export import export_onnx

sys.path.insert(0, osp.join(osp.dirname(__file__), '..'))
from zoo import OwnAttention  # noqa: E402

IMAGE = (2, 3, 16, 16)


class Network(nn.Module):
    """Two attentions that take their width from what they read."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.one, self.two = OwnAttention(16, 4), OwnAttention(16, 4)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = x + self.one(x)
        x = x + self.two(self.norm(x))
        return self.head(x.mean(1))


@pytest.fixture(scope='module')
def subnet():
    """A cut model, and the supernet with the same choices."""
    torch.manual_seed(0)
    search = Search(Network(), torch.rand(IMAGE), 0.9, 1)
    search.mutator.set_choices(search.mutator.sample_choices('min'))
    model = search.export(divisor=1).model
    return model.eval(), search.model.eval()


def test_it_reads_fewer_channels_than_it_has_inside(subnet):
    model, supernet = subnet
    assert isinstance(model.one, ReadsFewer)
    assert model.one.c_attn.in_features < model.one.c_attn.out_features / 3
    image = torch.rand(IMAGE)
    assert torch.allclose(model(image), supernet(image), atol=1e-5)


class Fitting(nn.Module):
    """Needs no width of its input, and has a table in evaluation alone."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.norm = 4, nn.LayerNorm(6)
        self.qkv, self.proj = nn.Linear(6, 48), nn.Linear(16, 6)

    def train(self, mode=True):
        self.__dict__.pop('table', None)
        if not mode:
            self.table = torch.zeros(1)
        return super().train(mode)

    def forward(self, x):
        x = self.norm(x)
        x = x if self.training else x + self.table
        query, key, value = self.qkv(x).chunk(3, -1)
        scores = query @ key.transpose(1, 2)
        return self.proj(scores.softmax(-1) @ value)


def test_it_is_tried_in_the_mode_that_it_is_called_in():
    model = nn.Sequential(Fitting())
    fit_foreign_attentions(model)
    assert isinstance(model[0], ReadsFewer)
    assert model.train()(torch.rand(2, 5, 6)).shape == (2, 5, 6)


class Places(nn.Module):
    """An attention that asks a layer where its weight is."""

    def __init__(self):
        super().__init__()
        self.num_heads = 4
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x):
        places = torch.arange(x.shape[1], device=self.qkv.weight.device)
        near = (places[None] - places[:, None]).abs().neg()
        shape = (*x.shape[:2], 3, 4, 16 // 4)
        query, key, value = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-2, -1) + near).softmax(-1)
        return self.proj((weights @ value).transpose(1, 2).flatten(2))


def test_its_code_may_ask_for_weights_of_layers(tmp_path):
    def build():
        network = Network()
        network.one = Places()
        return network

    torch.manual_seed(0)
    search = Search(build(), torch.rand(IMAGE), 0.9, 1)
    search.mutator.set_choices(search.mutator.sample_choices('min'))
    path = str(tmp_path / 'subnet.yaml')
    search.export(path)
    fresh = apply_structure(build(), path)
    assert isinstance(fresh.one, ReadsFewer)
    assert fresh(torch.rand(IMAGE)).shape == (2, 4)


def test_a_copy_is_of_the_same_form(subnet):
    model, _ = subnet
    copy, image = deepcopy(model), torch.rand(IMAGE)
    assert type(copy.one) is type(model.one)
    assert torch.equal(copy(image), model(image))


def test_as_an_onnx_file(subnet, tmp_path):
    model, _ = subnet
    path = str(tmp_path / 'model.onnx')
    assert export_onnx(model, (1, *IMAGE[1:]), path) < 1e-5


@pytest.mark.parametrize('which', [0, 1], ids=['subnet', 'supernet'])
def test_compiled(which, subnet):
    """By the compiler's front end; what it makes of a graph is its own."""
    model, image = deepcopy(subnet[which]), torch.rand(IMAGE)
    compiled = torch.compile(model, backend='eager')
    assert torch.allclose(compiled(image), model(image), atol=1e-5)
