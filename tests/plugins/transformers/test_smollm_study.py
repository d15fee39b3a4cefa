"""The study of SmolLM2, on a tiny Llama in its place."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from dms_mmrazor.plugins.transformers.byte_pairs import train_tokenizer

STUDIES = Path(__file__).parents[3] / 'benchmarks/studies'
transformers = pytest.importorskip('transformers')


@pytest.fixture
def study(monkeypatch, tmp_path):
    """Runs the study's command in this process, with a converted model."""
    text = ' '.join(f'{n} and {n + 1} are {2 * n + 1}.' for n in range(900))
    for index in range(4):
        (tmp_path / f'{index}.txt').write_text(text)
    folder = tmp_path / 'out/files/smollm2'
    tokenizer = train_tokenizer(
        [str(tmp_path / '0.txt')], str(folder), vocabulary=300
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=12,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
    ).save_pretrained(folder)
    monkeypatch.syspath_prepend(str(STUDIES))
    threads = torch.get_num_threads()
    options = '--steps 6 --scored 1 --windows 2 --out-dir'.split()
    argv = ['smollm.py', 'none.gguf', str(tmp_path / '*.txt'), *options]

    def call(*more):
        monkeypatch.setattr(sys, 'argv', [*argv, str(tmp_path / 'out'), *more])
        importlib.import_module('smollm').main()

    yield call
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    for name in ('smollm', 'llama'):
        sys.modules.pop(name, None)


def test_both_methods_and_the_table(study, tmp_path, capsys):
    names = ('whole', 'dms-t0.8-s0', 'llm-pruner-t0.8-s0')
    for name in names:
        study('--run', name)
    study()  # nothing is left to do
    text = capsys.readouterr().out
    assert all(f'| {name} |' in text for name in names)
    assert text.count("'Water boils when") == 3
    runs = {
        name: json.loads((tmp_path / f'out/runs/{name}.json').read_text())
        for name in names
    }
    whole, *cut = (run['result'] for run in runs.values())
    for result in cut:
        assert 0.7 < result['params'] / whole['params'] <= 0.8
        assert result['megabytes'] < whole['megabytes']
        assert set(result['before']) == {'128', '512'}
    layers, ruled = whole['layers'], cut[1]['layers']
    assert ruled[:4] == layers[:4] and ruled[-2:] == layers[-2:]
    assert all(a != b for a, b in zip(ruled[4:10], layers[4:10]))
