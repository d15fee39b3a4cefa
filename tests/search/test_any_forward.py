"""Searches of models whatever their forward takes and gives."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from dms_mmrazor import DMSError, Search, apply_structure
from dms_mmrazor.graph.example_inputs import as_example
from dms_mmrazor.graph.outputs import flatten_tensors

STEPS = 3
TOKENS = dict(
    input_ids=torch.tensor([[1, 2, 3, 4, 5, 0], [6, 7, 8, 0, 0, 0]]),
    attention_mask=torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]]),
)


class TwoInputs(nn.Module):
    """An image and a vector; gives a dict."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.linear = nn.Linear(5, 16)
        self.middle = nn.Linear(16, 24)
        self.head = nn.Linear(24, 4)

    def forward(self, image, vector, scale=None, flip=False):
        x = self.norm(self.conv(image)).relu().mean((2, 3))
        y = self.linear(vector)
        if scale is not None:
            y = y * scale
        if flip:
            y = -y
        hidden = self.middle(x * y.sigmoid()).relu()
        return {'logits': self.head(hidden), 'loss': None}


@dataclass
class Output:
    logits: Tensor
    pooled: Tensor


class Reader(nn.Module):
    """Token ids and, perhaps, a mask of them; gives a dataclass."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.middle = nn.Linear(16, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, input_ids, attention_mask=None):
        padding = None if attention_mask is None else attention_mask == 0
        x = self.encoder(self.embed(input_ids), src_key_padding_mask=padding)
        logits = self.head(self.middle(x[:, 0]).relu())
        return Output(logits, logits.mean())


class Features(nn.Module):
    """A vector of features, without images; gives a tuple."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(6, 32)
        self.two = nn.Linear(32, 32)
        self.head = nn.Linear(32, 2)

    def forward(self, x):
        return self.head(self.two(self.one(x).relu()).relu()), None


class Signal(nn.Module):
    """Channels before positions."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv1d(6, 16, 3)
        self.norm = nn.BatchNorm1d(16)
        self.two = nn.Conv1d(16, 16, 3)
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        x = self.two(self.norm(self.one(x)).relu()).relu()
        return self.head(x.mean(-1))


CASES = {
    'several inputs': (
        TwoInputs,
        (torch.rand(2, 3, 8, 8), torch.rand(2, 5)),
        {'conv', 'linear', 'middle', 'head'},
    ),
    'keyword arguments': (
        TwoInputs,
        dict(
            vector=torch.rand(2, 5),
            image=torch.rand(2, 3, 8, 8),
            scale=2.0,
            flip=True,
        ),
        {'conv', 'linear', 'middle', 'head'},
    ),
    'token ids': (Reader, TOKENS['input_ids'], {'middle', 'head'}),
    'ids and mask': (Reader, TOKENS, {'middle', 'head'}),
    'features': (Features, torch.rand(2, 6), {'one', 'two', 'head'}),
    'one vector': (Features, [torch.rand(6)], {'one', 'two', 'head'}),
    'signal': (Signal, torch.rand(2, 6, 12), {'one', 'two', 'head'}),
}


def _searched(search):
    report = search.mutator.report()
    names = {layer.name for layer in report.layers}
    return names - {layer.name for layer in report.unsearched}


@pytest.mark.parametrize('case', CASES)
def test_a_search_of_any_forward(case, tmp_path):
    build, inputs, expected = CASES[case]
    search = Search(build(), inputs, 0.6, STEPS)
    assert expected <= _searched(search)
    example = as_example(inputs)
    optimizer = torch.optim.SGD(search.model.parameters(), lr=0.01)
    for _ in range(STEPS):
        outputs = flatten_tensors(example.call(search.model))
        outputs[0].square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        search.step()
    path = str(tmp_path / 'subnet.yaml')
    subnet = search.export(path, divisor=1)
    assert subnet.difference <= 1e-5
    macs = subnet.structure.resources['macs']
    assert macs['subnet'] <= macs['target'] and macs['ratio'] > 0.3
    plain = apply_structure(build(), path)
    plain.load_state_dict(subnet.model.state_dict())
    with torch.no_grad():
        found = flatten_tensors(example.call(plain.eval()))
        whole = flatten_tensors(example.call(search.model.eval()))
    assert found[0].isfinite().all() and len(found) == len(whole)


def test_macs_are_of_one_example():
    one, two = (Search(Features(), torch.rand(n, 6), 0.9, 1) for n in (1, 2))
    full = 6 * 32 + 32 * 32 + 32 * 2
    assert one.mutator.table.full['macs'] == full
    assert two.mutator.table.full['macs'] == full


def test_bad_inputs_are_named():
    wrong = [
        ('must be what `model` is called with', None),
        ('has no tensor', ()),
        ('has no tensor', {'x': 3}),
        ('fails in `one`', torch.rand(2, 7)),
        ('unexpected keyword', {'y': torch.rand(2, 6)}),
    ]
    for words, inputs in wrong:
        with pytest.raises(DMSError) as error:
            Search(Features(), inputs, 0.5, 1)
        text = str(error.value)
        assert 'example_inputs' in text and '\n' not in text
        assert words in text
    with pytest.raises(DMSError, match='no parameters'):
        Search(nn.ReLU(), torch.rand(2, 6), 0.5, 1)
