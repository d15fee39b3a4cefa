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
