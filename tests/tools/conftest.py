"""A tiny search, run once by the real tools in processes of their own."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools'

DATA = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['dms_mmrazor.plugin'])
data_preprocessor = dict(
    type='ClsDataPreprocessor', num_classes=2, mean=[128.0] * 3,
    std=[64.0] * 3)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root={data!r},
        with_label=True,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
test_dataloader = dict(
    train_dataloader, sampler=dict(type='DefaultSampler', shuffle=False))
test_evaluator = dict(type='Accuracy', topk=(1,))
test_cfg = dict()
train_cfg = dict(by_epoch=False, max_iters=8)
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4))
randomness = dict(seed=0)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
architecture = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmpretrain.ResNet_CIFAR', depth=18, num_stages=2,
        strides=(1, 2), dilations=(1, 1), out_indices=(1,), stem_channels=8,
        base_channels=8),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead', num_classes=2, in_channels=16,
        loss=dict(type='mmpretrain.CrossEntropyLoss'), topk=(1,)))
"""

SEARCH = """
model = dict(
    type='mmrazor.DMSAlgorithm',
    architecture=architecture,
    mutator=dict(
        type='mmrazor.DMSMutator',
        parse_cfg=dict(demo_input=(1, 3, 16, 16))))
optim_wrapper.update(constructor='mmrazor.DMSOptimWrapperConstructor')
custom_hooks = [
    dict(type='mmrazor.ResourceHook', target=0.5, divisor=2, interval=4)]
"""

RETRAIN = """
model = dict(
    type='mmrazor.DMSSubModel',
    architecture=architecture,
    structure={structure!r})
"""


class Finished(NamedTuple):
    """A process that ended."""

    status: int
    out: str
    err: str

    @property
    def error_lines(self) -> list:
        """Lines on standard error but warnings of other packages."""
        return [
            line
            for line in self.err.splitlines()
            if line.startswith('error:') or 'Traceback' in line
        ]


def run(*command: Any, cwd: Any = ROOT, **env: str) -> Finished:
    """Run a command; numbers of threads are those of the test run."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=str(cwd),
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope='session')
def command():
    """Run any command."""
    return run


@pytest.fixture(scope='session')
def tool():
    """Run a tool by its name."""

    def run_tool(name: str, *args: Any, **kwargs: Any) -> Finished:
        return run(sys.executable, TOOLS / name, *args, **kwargs)

    return run_tool


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a tool that trains nothing without starting a process."""

    def call_tool(name: str, *args: Any) -> Finished:
        words = [str(word) for word in (name, *args)]
        monkeypatch.setattr(sys, 'argv', words)
        status = 0
        try:
            runpy.run_path(str(TOOLS / name), run_name='__main__')
        except SystemExit as end:
            status = end.code
        return Finished(status, *capsys.readouterr())

    return call_tool


@pytest.fixture(scope='session')
def workspace(tmp_path_factory):
    """A folder with forty images in two classes and the search's config."""
    folder = tmp_path_factory.mktemp('tools')
    rng = np.random.RandomState(0)
    for index in range(40):
        label = index % 2
        image = rng.randint(0, 128, (16, 16, 3)) + 100 * label
        (folder / 'data' / str(label)).mkdir(parents=True, exist_ok=True)
        path = folder / 'data' / str(label) / f'{index}.png'
        cv2.imwrite(str(path), image.astype(np.uint8))
    data = DATA.format(data=str(folder / 'data'))
    (folder / 'search.py').write_text(data + SEARCH)
    structure = str(folder / 'run' / 'subnet' / 'subnet.yaml')
    retrain = RETRAIN.format(structure=structure)
    (folder / 'retrain.py').write_text(data + retrain)
    return folder


@pytest.fixture(scope='session')
def search(workspace, tool):
    """The work dir of a finished search: 8 iterations, checkpoints 4, 8."""
    work_dir = workspace / 'run'
    done = tool('train.py', workspace / 'search.py', '--work-dir', work_dir)
    assert done.status == 0, done.err
    return work_dir


@pytest.fixture(scope='session')
def latency_table(workspace, tool):
    """What the tool has measured of the search's network: not much."""
    path = workspace / 'latency.yaml'
    done = tool(
        *('profile_latency.py', workspace / 'search.py', '--out', path),
        *('--structures', 4, '--rounds', 1, '--threads', 1),
    )
    assert done.status == 0, done.err
    assert f'Wrote {path}.' in done.out
    return path
