from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from dms_mmrazor.graph.outputs import (
    IncomparableError,
    difference,
    flatten_tensors,
    named_tensors,
)


@dataclass
class Data:
    logits: torch.Tensor
    loss: object = None


class Plain:
    def __init__(self, value):
        self.value = value
        self.owner = self


class Slotted:
    __slots__ = ('value', 'unset')

    def __init__(self, value):
        self.value = value


class Output(dict):
    """As transformers' outputs are: keys and attributes."""

    def __init__(self, **kwargs):
        super().__init__(kwargs)
        self.__dict__.update(kwargs)


Pair = namedtuple('Pair', 'left right')

KINDS = {
    'tensor': (lambda x: x, ''),
    'nested': (lambda x: [None, {'a': (3, x)}], "[1]['a'][1]"),
    'named tuple': (lambda x: Pair('text', x), '.right'),
    'data class': (Data, '.logits'),
    'object': (Plain, '.value'),
    'slots': (Slotted, '.value'),
    'list of objects': (lambda x: [Plain(Data(x))], '[0].value.logits'),
    'model output': (lambda x: Output(logits=x), "['logits']"),
    'data element': (lambda x: BaseDataElement(boxes=x), '.boxes'),
    'metainfo': (lambda x: BaseDataElement(metainfo=dict(a=x)), '.a'),
    'array': (lambda x: {'a': x.numpy()}, "['a']"),
    'generator': (lambda x: (part for part in [x]), '[0]'),
    'distribution': (
        lambda x: torch.distributions.Bernoulli(logits=x),
        '.logits',
    ),
}


@pytest.mark.parametrize('kind', KINDS)
def test_tensors_are_found_wherever_they_are(kind):
    wrap, place = KINDS[kind]
    one, two = torch.rand(2, 3), torch.rand(2, 3)
    assert place in named_tensors(wrap(one))
    assert difference(wrap(one), wrap(one)) == 0
    expected = float((one - two).abs().max() / two.abs().max())
    assert difference(wrap(one), wrap(two)) >= expected * 0.999


def test_the_order_stays():
    a, b, c = torch.rand(1), torch.rand(2), torch.rand(3)
    outputs = [a, {'x': (b, None), 'y': 'text'}, [c]]
    assert [len(tensor) for tensor in flatten_tensors(outputs)] == [1, 2, 3]


X = torch.rand(3)


@pytest.mark.parametrize(
    'one, two',
    [
        ([X, X], [X]),
        ([X], [X, X]),
        (X, None),
        (None, X),
        ({'a': X}, {'b': X}),
        (None, None),
        ('text', 'text'),
        (Plain(3), Plain(3)),
        (torch.rand(0, 4), torch.rand(0, 4)),
        ([X * float('nan')], [X * float('nan')]),
    ],
)
def test_what_cannot_be_compared_is_no_proof(one, two):
    with pytest.raises(IncomparableError):
        difference(one, two)


def test_numbers_of_all_types():
    for one in (
        torch.tensor([True, False]),
        torch.tensor([1, 2], dtype=torch.uint8),
        torch.rand(2).half(),
        torch.rand(2, dtype=torch.complex64),
        torch.rand(2, 2).to_sparse(),
        np.arange(3),
    ):
        assert difference(one, one) == 0
    assert difference(torch.tensor([True]), torch.tensor([False])) > 1
    hidden = torch.tensor([-float('inf'), 1.0])
    assert difference(hidden, hidden) == 0
    assert difference(hidden, torch.ones(2)) == float('inf')
    assert difference(torch.ones(2), torch.ones(3)) == float('inf')
