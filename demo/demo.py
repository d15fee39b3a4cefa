"""The whole way on real images: search, export, retrain, compare.

A residual network is searched for a quarter of its MACs on scikit-learn's
handwritten digits, exported as a plain model and trained from scratch,
beside the whole network and the same network narrowed uniformly to the same
MACs. Every step is a command that is printed and can be typed by hand. Takes
under eight minutes on two cores.
"""

import argparse
import json
import os
import os.path as osp
import subprocess
import sys
import time
from glob import glob
from statistics import mean, stdev
from typing import Any, Dict, List, NamedTuple

import yaml

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
CONFIGS = 'configs/digits'
PLAIN = f'{CONFIGS}/resnet28_1xb64-10e_digits.py'
SEARCH = f'{CONFIGS}/resnet28_dms-search_1xb64-16e_digits.py'
VALIDATION = 360
ITERATIONS = 23  # of one epoch: 1,437 images in batches of 64
RETRAIN = f'{CONFIGS}/resnet28_dms-retrain_1xb64-10e_digits.py'


class Run(NamedTuple):
    """Result of one training.

    Attributes:
        top1 (float): Final top-1 accuracy in percent.
        seconds (float): Seconds per epoch of training, validation excluded.
    """

    top1: float
    seconds: float


def call(*args: str) -> None:
    """Show a command, run it, and stop the demo if it fails."""
    print('\n$ python ' + ' '.join(args), flush=True)
    started = time.time()
    # Threads that wait must not spin: other processes may need the cores.
    environment = {'OMP_WAIT_POLICY': 'PASSIVE', **os.environ}
    log = subprocess.run(
        [sys.executable, *args],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if log.returncode:
        sys.exit(f'{log.stdout}\nThe command above failed.')
    for line in log.stdout.splitlines():
        if any(key in line for key in ('DMS ', 'Subnet:', 'Wrote ')):
            print('  ' + line.partition(' - INFO - ')[2])
    print(f'  done in {time.time() - started:.0f} s', flush=True)


def read_run(work_dir: str) -> Run:
    """Accuracy and speed of a training, from mmengine's own records."""
    path = sorted(glob(osp.join(ROOT, work_dir, '*/vis_data/scalars.json')))[
        -1
    ]
    with open(path) as file:
        records = [json.loads(line) for line in file]
    top1 = [r['accuracy/top1'] for r in records if 'accuracy/top1' in r]
    times = [r['time'] for r in records if 'lr' in r]
    return Run(top1[-1], ITERATIONS * mean(times[1:] or times))


def train(config: str, work_dir: str, *options: str) -> Run:
    """Train a config and read what came out."""
    args = ['tools/train.py', config, '--work-dir', work_dir]
    call(*args, *(['--cfg-options', *options] if options else []))
    return read_run(work_dir)


def train_structure(structure: str, name: str, seeds: int) -> List[Run]:
    """Train one structure from several random starts."""
    return [
        train(
            RETRAIN,
            f'work_dirs/demo/{name}_seed{seed}',
            f'model.structure={structure}',
            f'randomness.seed={seed}',
        )
        for seed in range(seeds)
    ]


def resources(structure: str) -> Dict[str, Any]:
    """Resources that a structure file states."""
    with open(osp.join(ROOT, structure)) as file:
        return yaml.safe_load(file)['resources']


def row(name: str, table: Dict[str, Any], column: str, runs: List[Run]) -> str:
    """One line of the final table."""
    macs, params = table['macs'][column], table['params'][column]
    scores = [run.top1 for run in runs]
    spread = f' ± {stdev(scores):.2f}' if len(scores) > 1 else ''
    return (
        f'{name:<22} {macs / 1e6:8.2f} {params / 1e3:10.1f} '
        f'{mean(scores):9.2f}{spread:<8} '
        f'{mean(run.seconds for run in runs):8.1f}'
    )


def main() -> None:
    """Run all steps and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, default=3, help='random starts')
    seeds = parser.parse_args().seeds
    started = time.time()

    call('tools/dataset_converters/digits.py', 'data/digits')
    call('tools/train.py', SEARCH, '--work-dir', 'work_dirs/demo/search')
    searched = 'work_dirs/demo/search/subnet/subnet.yaml'
    uniform = 'work_dirs/demo/uniform/subnet.yaml'
    picture = 'work_dirs/demo/subnet.png'
    call('tools/narrow_uniformly.py', SEARCH, uniform)
    call('tools/visualize_subnet.py', searched, '--out', picture)

    whole = train(PLAIN, 'work_dirs/demo/supernet')
    narrow = train_structure(uniform, 'uniform', seeds)
    found = train_structure(searched, 'searched', seeds)

    before, after = resources(searched), resources(uniform)
    print(
        f'\n{"":<22} {"MACs/M":>8} {"params/K":>10} {"top-1/%":>9}{"":8} '
        f'{"s/epoch":>8}'
    )
    print(row('supernet', before, 'supernet', [whole]))
    print(row('uniformly narrowed', after, 'subnet', narrow))
    print(row('searched', before, 'subnet', found))
    print(
        f'\n{seeds} seeds for the last two rows (mean ± standard deviation); '
        f'{VALIDATION} validation images, so one image is '
        f'{100 / VALIDATION:.2f} %.\nWidths and depths: {picture}\n'
        f'{time.time() - started:.0f} s in all.'
    )


if __name__ == '__main__':
    main()
