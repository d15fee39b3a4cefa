"""The examples run as the README says."""

import os.path as osp
import subprocess
import sys

import pytest

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))


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


def test_demo(tmp_path):
    """A few steps of each part; the card is there at the end."""
    pytest.importorskip('sklearn')
    options = '--seeds 1 --search-steps 10 --steps 4 --random 1 --no-browser'
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
