"""The examples run as the README says."""

import os.path as osp
import subprocess
import sys

import pytest

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))


def test_llama(tmp_path):
    pytest.importorskip('transformers')
    options = ['--steps', '3', '--finetune-steps', '2', '--batch', '2']
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


def test_plain_pytorch(tmp_path):
    pytest.importorskip('sklearn')
    options = ['--search-epochs', '1', '--epochs', '1', '--target', '0.7']
    found = subprocess.run(
        [sys.executable, 'examples/plain_pytorch.py', *options]
        + ['--out', str(tmp_path / 'subnet.yaml')],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert 'searched: ' in found.stdout and 'whole: ' in found.stdout
    assert (tmp_path / 'subnet.yaml').is_file()
