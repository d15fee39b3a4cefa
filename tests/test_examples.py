"""The examples run as the README says."""

import importlib.util
import os
import os.path as osp
import subprocess
import sys

import pytest

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))


@pytest.mark.parametrize('lora', [[], ['--lora', '2']], ids=['', 'lora'])
def test_llama(lora, tmp_path):
    pytest.importorskip('transformers')
    if lora:
        pytest.importorskip('peft')
    options = ['--steps', '3', '--finetune-steps', '2', '--batch', '2', *lora]
    options += ['--window', '32', '--divisor', '1']
    found = subprocess.run(
        [sys.executable, 'examples/llama.py', *options]
        + ['--out', str(tmp_path / 'found')],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert 'finetuned: perplexity' in found.stdout
    assert (tmp_path / 'found' / 'modeling_dms.py').is_file()


def test_llama_says_what_it_needs(tmp_path):
    """Text and tokenizer of a model of one's own."""
    transformers = pytest.importorskip('transformers')
    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=8, num_hidden_layers=1
    )
    config.save_pretrained(tmp_path)
    (tmp_path / 'text.txt').write_text('words')
    command = [sys.executable, 'examples/llama.py', '--model', str(tmp_path)]
    for options, message in (
        ([], '--model needs --text'),
        (['--text', str(tmp_path / 'text.txt')], 'has no tokenizer.json'),
    ):
        found = subprocess.run(
            command + options, cwd=ROOT, capture_output=True, text=True
        )
        assert found.returncode and 'Traceback' not in found.stderr
        assert message in found.stderr.splitlines()[-1]


def run(name, folder, *options):
    """What an example prints; it leaves a structure in the folder."""
    pytest.importorskip('sklearn')
    # Tools that ran in this process may have set it, as mmengine wants.
    env = {k: v for k, v in os.environ.items() if k != 'LOCAL_RANK'}
    found = subprocess.run(
        [sys.executable, f'examples/{name}', *options, '--target', '0.7']
        + ['--out', str(folder / 'subnet.yaml')],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert (folder / 'subnet.yaml').is_file()
    return found.stdout


def test_plain_pytorch(tmp_path):
    options = ['--search-epochs', '1', '--epochs', '1']
    text = run('plain_pytorch.py', tmp_path, *options)
    assert 'searched: ' in text and 'whole: ' in text


@pytest.mark.parametrize('library', ['accelerate', 'lightning'])
def test_loops_of_other_libraries(library, tmp_path):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f'{library} is not installed')
    text = run(f'with_{library}.py', tmp_path, '--epochs', '1')
    assert "'target'" in text


def test_demo(tmp_path):
    """A few steps of each part; the card is there at the end."""
    pytest.importorskip('sklearn')
    options = '--seeds 1 --search-steps 8 --steps 4 --random 1 --no-browser'
    options += ' --canvases 0.03'
    found = subprocess.run(
        [sys.executable, 'demo/demo.py', *options.split()]
        + ['--out', str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    for name in ('whole network', 'uniform', 'best of 1 random', 'searched'):
        assert f'\n{name}' in found.stdout
    assert (tmp_path / 'search0/card.html').is_file()
