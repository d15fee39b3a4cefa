"""Shell scripts, and what they hand over to Python."""

import os
import socket
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return str(server.getsockname()[1])


def test_search_in_two_processes(workspace, command, tmp_path):
    done = command(
        *(TOOLS / 'dist_train.sh', workspace / 'search.py', 2),
        *('--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_iters=4'),
        PYTHON=sys.executable,
        PORT=free_port(),
    )
    assert done.status == 0, done.err
    assert 'Distributed launcher: pytorch' in done.out
    assert 'GPU number: 2' in done.out
    assert (tmp_path / 'subnet' / 'subnet.yaml').is_file()


def test_dist_test(search, workspace, command, tmp_path):
    done = command(
        *(TOOLS / 'dist_test.sh', workspace / 'search.py'),
        *(search / 'iter_8.pth', 1, '--work-dir', tmp_path),
        PYTHON=sys.executable,
        PORT=free_port(),
    )
    assert done.status == 0, done.err
    assert 'Distributed launcher: pytorch' in done.out
    assert 'accuracy/top1' in done.out


@pytest.mark.parametrize(
    'script, extra',
    [
        ('slurm_train.sh', ['--work-dir', 'given']),
        ('slurm_test.sh', ['given']),
    ],
)
def test_slurm(script, extra, command, tmp_path):
    """Options with spaces stay whole; SRUN_ARGS is split."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    done = command(
        *(TOOLS / script, 'part', 'job', 'config.py', 'given'),
        *('--cfg-options', 'a=b c'),
        PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
        SRUN_ARGS='--quiet --time 5',
        GPUS='4',
        GPUS_PER_NODE='2',
    )
    assert done.status == 0, done.err
    words = done.out.splitlines()
    for word in ['part', '--ntasks=4', '--gres=gpu:2', '--quiet', 'a=b c']:
        assert word in words
    tool = str(TOOLS / script.replace('slurm_', '').replace('.sh', '.py'))
    at = words.index(tool)
    assert words[at + 1 : at + 2 + len(extra)] == ['config.py', *extra]
    assert words[words.index('--launcher') + 1] == 'slurm'


@pytest.mark.parametrize(
    'script',
    ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'],
)
def test_usage(script, command):
    done = command(TOOLS / script)
    assert done.status == 2
    assert done.err.startswith('usage: ')
