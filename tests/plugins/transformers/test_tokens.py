"""Windows of tokens from arrays, text and JSON lines."""

import json

import numpy as np
import pytest
import torch

from dms_mmrazor.errors import DMSError
from dms_mmrazor.plugins.transformers.causal_lm import Perplexity
from dms_mmrazor.plugins.transformers.tokens import TokenWindows


class Letters:
    """A tokenizer of single letters."""

    eos_token_id = 0

    def __call__(self, text, add_special_tokens):
        return {'input_ids': [ord(letter) for letter in text]}


@pytest.fixture
def array(tmp_path):
    """Ten documents of 5 tokens of their own number, each with an end."""
    rows = [[number + 1] * 5 + [0] for number in range(10)]
    path = tmp_path / 'tokens.npy'
    np.save(path, np.array(rows, dtype=np.uint16).ravel())
    return str(path)


def all_tokens(windows):
    return torch.cat([windows[i]['inputs'] for i in range(len(windows))])


def test_arrays_are_packed(array):
    windows = TokenWindows(array, window=6, end_token=0)
    assert len(windows) == windows.documents == 10
    assert windows[3]['inputs'].tolist() == [4] * 5 + [0]
    assert windows[3]['inputs'].dtype == torch.int64
    assert torch.equal(windows[3]['data_samples'], windows[3]['inputs'])
    with pytest.raises(IndexError):
        windows[10]


def test_documents_are_split_whole(array):
    parts = [
        TokenWindows(array, 6, part=part, held_out=0.3, end_token=0, seed=1)
        for part in ('train', 'held_out')
    ]
    train, held_out = (set(all_tokens(part).tolist()) for part in parts)
    assert train & held_out == {0} and len(held_out) == 4
    again = TokenWindows(
        array, 6, part='held_out', held_out=0.3, end_token=0, seed=1
    )
    assert torch.equal(all_tokens(parts[1]), all_tokens(again))


def test_a_stride_predicts_every_token_once(array):
    windows = TokenWindows(array, window=12, stride=4, end_token=0)
    counted = [
        (windows[i]['data_samples'] != -100).sum() for i in range(len(windows))
    ]
    assert counted[0] == 12 and set(map(int, counted[1:])) == {4}


def test_answers_alone_count(tmp_path):
    rows = [
        dict(instruction='Add.', input='1 1', output='2'),
        dict(instruction='Sing.', input='', output='la'),
    ]
    path = tmp_path / 'rows.jsonl'
    path.write_text('\n'.join(map(json.dumps, rows)))
    windows = TokenWindows(str(path), 2, Letters())
    labels = torch.cat(
        [windows[i]['data_samples'] for i in range(len(windows))]
    )
    predicted = labels[labels > 0].tolist()
    assert ''.join(map(chr, predicted)) in ('2la', '2l')
    inputs = ''.join(map(chr, all_tokens(windows).tolist()))
    assert '1 1' in inputs and inputs.count('### Input') == 1


def test_text_has_documents(tmp_path):
    (tmp_path / 'a.txt').write_text('one\n\n\ntwo')
    (tmp_path / 'b.txt').write_text('three')
    windows = TokenWindows(str(tmp_path / '*.txt'), 14, Letters())
    assert windows.documents == 3
    assert windows[0]['inputs'].tolist()[3] == 0


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(files='nowhere.txt'), 'no file'),
        (dict(window=100), 'less than one window'),
        (dict(part='half'), 'part'),
        (dict(window=6, stride=7), 'stride'),
    ],
)
def test_bad_input(array, change, message):
    settings = dict(dict(files=array, window=6, end_token=0), **change)
    with pytest.raises(DMSError, match=message):
        TokenWindows(**settings)


def test_bad_files(tmp_path):
    text, table = tmp_path / 'a.txt', tmp_path / 'b.jsonl'
    text.write_text('words')
    table.write_text('{"question": "?"}')
    with pytest.raises(DMSError, match='give `tokenizer`'):
        TokenWindows(str(text), 2)
    with pytest.raises(DMSError, match='row 1 needs'):
        TokenWindows(str(table), 2, Letters())


def test_perplexity():
    metric = Perplexity()
    metric.process(None, [dict(nll=6 * np.log(5), tokens=6)])
    metric.process(None, [dict(nll=2 * np.log(5), tokens=2)])
    found = metric.evaluate(8)
    assert found['perplexity'] == pytest.approx(5) and found['tokens'] == 8
