"""YOLOv8 on BCCD: supernet, searched and uniformly narrowed, by COCO mAP.

Searches the supernet of ``configs/yolov8/*_bccd.py`` to its target, exports,
and trains all three for the same number of iterations from random weights.
Every step is a command that is printed and can be typed by hand; a training
that has its result in the work dir is not repeated.

    BCCD_ROOT=data/bccd/ python benchmarks/detection_bccd.py
"""

import argparse
import json
import os
import os.path as osp
import subprocess
import sys
from glob import glob
from statistics import mean, stdev
from typing import Any, Dict, List, NamedTuple, Optional

import yaml

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
CONFIG = 'configs/yolov8/yolov8_d50w25{}_fast_1xb8-16e_bccd.py'
PLAIN = CONFIG.format('')
SEARCH = CONFIG.format('_dms-search')
RETRAIN = CONFIG.format('_dms-retrain')
EPOCHS = 16

# One process: what is timed does not depend on free cores.
IN_PROCESS = [
    f'{split}_dataloader.{option}'
    for split in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]


class Run(NamedTuple):
    """Result of one training.

    Attributes:
        map (float): Final mAP (IoU 0.5:0.95) in percent.
        map50 (float): Final mAP at IoU 0.5 in percent.
        seconds (float): Seconds per iteration, the median.
    """

    map: float
    map50: float
    seconds: float


def call(*args: str) -> None:
    """Show a command, run it, and stop if it fails."""
    print('\n$ python ' + ' '.join(args), flush=True)
    done = subprocess.run(
        [sys.executable, *args],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f'{done.stdout}\nThe command above failed.')
    for line in done.stdout.splitlines():
        if any(key in line for key in ('DMS ', 'Subnet:', 'Wrote ', 'ended')):
            print('  ' + line.partition(' - mmengine - ')[2], flush=True)


def read_run(work_dir: str) -> Optional[Run]:
    """Scores and speed of a finished training, from mmengine's records."""
    paths = glob(osp.join(ROOT, work_dir, '*/vis_data/scalars.json'))
    if not paths:
        return None
    with open(sorted(paths)[-1]) as file:
        records = [json.loads(line) for line in file]
    validations = [r for r in records if 'coco/bbox_mAP' in r]
    if not validations or validations[-1]['step'] != EPOCHS:
        return None
    scores = validations[-1]
    times = sorted(r['time'] for r in records if 'loss' in r)
    return Run(
        100 * scores['coco/bbox_mAP'],
        100 * scores['coco/bbox_mAP_50'],
        times[len(times) // 2],
    )


def train(config: str, work_dir: str, *options: str) -> Run:
    """Train a config and read what came out."""
    found = read_run(work_dir)
    if found is None:
        args = ['tools/train.py', config, '--work-dir', work_dir]
        call(*args, '--cfg-options', *IN_PROCESS, *options)
        found = read_run(work_dir)
    if found is None:
        sys.exit(f'{work_dir} has no result of {EPOCHS} epochs.')
    return found


def row(name: str, table: Dict[str, Any], column: str, runs: List[Run]) -> str:
    """One line of the table."""
    cells = [
        f'{table["macs"][column] / 1e6:.1f}',
        f'{table["params"][column] / 1e6:.2f}',
    ]
    for values in ([r.map for r in runs], [r.map50 for r in runs]):
        spread = f' ± {stdev(values):.1f}' if len(values) > 1 else ''
        cells.append(f'{mean(values):.1f}{spread}')
    cells.append(f'{mean(run.seconds for run in runs):.2f}')
    return f'| {name} | {" | ".join(cells)} |'


def main() -> None:
    """Run all steps and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, default=3, help='random starts')
    parser.add_argument('--out', default='work_dirs/detection_bccd')
    args = parser.parse_args()
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

    files = {
        'searched': f'{args.out}/search/subnet/subnet.yaml',
        'uniformly narrowed': f'{args.out}/uniform.yaml',
    }
    train(SEARCH, f'{args.out}/search')
    call('tools/narrow_uniformly.py', SEARCH, files['uniformly narrowed'])
    runs: Dict[str, List[Run]] = {'supernet': [], **{n: [] for n in files}}
    for seed in range(args.seeds):
        option = f'randomness.seed={seed}'
        for name, file in files.items():
            folder = f'{args.out}/{name.split()[0]}_{seed}'
            structure = f'model.structure={file}'
            runs[name].append(train(RETRAIN, folder, structure, option))
    runs['supernet'].append(train(PLAIN, f'{args.out}/supernet'))

    tables = {}
    for name, file in files.items():
        with open(osp.join(ROOT, file)) as stream:
            tables[name] = yaml.safe_load(stream)['resources']
    print('\n| | MACs / M | params / M | mAP | mAP50 | s per iteration |')
    print('|---|---|---|---|---|---|')
    print(row('supernet', tables['searched'], 'supernet', runs['supernet']))
    for name in files:
        print(row(name, tables[name], 'subnet', runs[name]))


if __name__ == '__main__':
    main()
