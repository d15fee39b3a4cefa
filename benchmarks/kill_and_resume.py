"""Kill a search at random moments and resume it: the result must not change.

    python benchmarks/kill_and_resume.py CONFIG WORK_DIR [--times 20]

The config needs `randomness.seed`. The search runs once undisturbed; then,
again and again, it is killed (-9) after a random time and resumed. Compared,
bit for bit: the last checkpoint's weights, importances and pruning ratios,
the structure file and the subnet's weights.
"""

import argparse
import os
import os.path as osp
import random
import runpy
import shutil
import signal
import sys
import time
from typing import Any, Dict, List

import torch

# Children are forked and have no imports to do.
import dms_mmrazor.plugin  # noqa: F401

TRAIN = osp.join(osp.dirname(osp.abspath(__file__)), '../tools/train.py')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of a short search')
    parser.add_argument('work_dir', help='folder for all runs')
    parser.add_argument('--times', type=int, default=20, help='kills')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    return parser.parse_args()


def start(config: str, folder: str, *options: str) -> int:
    """Train in a process of its own, with all output in a file."""
    os.makedirs(folder, exist_ok=True)
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        sys.stdout = open(osp.join(folder, 'log.txt'), 'a', buffering=1)
        sys.stderr = sys.stdout
        sys.argv = [TRAIN, config, '--work-dir', folder, *options]
        runpy.run_path(TRAIN, run_name='__main__')
        status = 0
    finally:
        os._exit(status)


def finish(pid: int) -> None:
    """Wait for a training; stop everything if it failed."""
    status = os.waitpid(pid, 0)[1]
    if status:
        sys.exit(f'a training ended with status {status}; see its log.txt')


def result(folder: str) -> Dict[str, Any]:
    """Everything that has to be equal."""
    with open(osp.join(folder, 'last_checkpoint'), encoding='utf-8') as file:
        last = file.read().strip()
    with open(osp.join(folder, 'subnet/subnet.yaml'), encoding='utf-8') as f:
        structure = f.read()
    weights = torch.load(osp.join(folder, 'subnet/subnet.pth'))['state_dict']
    state = torch.load(last, map_location='cpu')['state_dict']
    subnet = {f'subnet.{name}': value for name, value in weights.items()}
    return {**state, **subnet, 'structure': structure}


def differences(one: Dict[str, Any], other: Dict[str, Any]) -> List[str]:
    """Names of what is not equal to the bit."""
    if one.keys() != other.keys():
        return sorted(one.keys() ^ other.keys())
    return [
        name
        for name, value in one.items()
        if not (
            torch.equal(value, other[name])
            if isinstance(value, torch.Tensor)
            else value == other[name]
        )
    ]


def stage_of(folder: str) -> str:
    """How far a killed training had come, by its files."""
    names = sorted(os.listdir(folder))
    kinds = ('.pth', '.tmp', 'last_checkpoint', 'subnet')
    return ' '.join(name for name in names if name.endswith(kinds)) or '-'


def main() -> None:
    """Run, kill, resume, compare."""
    args = parse_args()
    whole = osp.join(args.work_dir, 'undisturbed')
    shutil.rmtree(args.work_dir, ignore_errors=True)
    began = time.perf_counter()
    finish(start(args.config, whole))
    duration = time.perf_counter() - began
    expected, rng, wrong = result(whole), random.Random(args.seed), 0
    print(f'undisturbed: {duration:.1f} s, {len(expected)} things to compare')
    for index in range(args.times):
        folder = osp.join(args.work_dir, f'killed_{index}')
        pid = start(args.config, folder)
        moment = rng.uniform(0, duration)
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        killed = os.waitpid(pid, 0)[1] == signal.SIGKILL
        stage = stage_of(folder)
        finish(start(args.config, folder, '--resume'))
        found = differences(expected, result(folder))
        wrong += bool(found)
        print(
            f'{index + 1:2d}: {"killed" if killed else "finished"} at '
            f'{moment:5.1f} s with {stage}: {found or "equal"}',
            flush=True,
        )
    print(f'{args.times - wrong} of {args.times} equal the undisturbed run')
    sys.exit(bool(wrong))


if __name__ == '__main__':
    main()
