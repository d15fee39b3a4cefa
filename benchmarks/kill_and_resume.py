"""Kill a search at random moments and resume it: the result must not change.

    python benchmarks/kill_and_resume.py CONFIG WORK_DIR [--times 20]

The config needs `randomness.seed`. The search runs once undisturbed; then,
again and again, it is killed (-9) at a random moment between its first
checkpoint and its end, and resumed. A run that ends before its moment is
repeated with another one: every kill is a real one. Compared, bit for bit:
the last checkpoint's weights, importances and pruning ratios, the structure
file and the subnet's weights.
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
from typing import Any, Dict, List, Tuple

import torch

# Children are forked and have no imports to do.
import dms_mmrazor.plugin  # noqa: F401

PATIENCE = 600  # seconds until the first checkpoint
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
    check(os.waitpid(pid, 0)[1])


def check(status: int) -> None:
    """Stop everything if a training failed."""
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


def wait_for_checkpoint(folder: str) -> None:
    """Wait until a training has something to resume from."""
    began = time.perf_counter()
    while not osp.isfile(osp.join(folder, 'last_checkpoint')):
        if time.perf_counter() - began > PATIENCE:
            sys.exit(f'no checkpoint in {folder} after {PATIENCE} s')
        time.sleep(0.005)


def run_undisturbed(config: str, folder: str) -> float:
    """Train; return the seconds between the first checkpoint and the end."""
    pid = start(config, folder)
    wait_for_checkpoint(folder)
    began = time.perf_counter()
    finish(pid)
    return time.perf_counter() - began


def run_killed(
    config: str, folder: str, duration: float, rng: random.Random
) -> Tuple[float, int]:
    """Train until a random moment after the first checkpoint.

    Returns:
        tuple: Seconds from the first checkpoint to the kill, and how many
        runs ended before their moment.
    """
    late = 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        pid = start(config, folder)
        wait_for_checkpoint(folder)
        moment = rng.uniform(0, duration)
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            return moment, late
        check(status)
        late += 1


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
    duration = run_undisturbed(args.config, whole)
    expected, rng = result(whole), random.Random(args.seed)
    print(
        f'undisturbed: {duration:.1f} s after the first checkpoint, '
        f'{len(expected)} things to compare'
    )
    wrong = late = 0
    for index in range(args.times):
        folder = osp.join(args.work_dir, f'killed_{index}')
        moment, ended = run_killed(args.config, folder, duration, rng)
        stage = stage_of(folder)
        finish(start(args.config, folder, '--resume'))
        found = differences(expected, result(folder))
        wrong += bool(found)
        late += ended
        print(
            f'{index + 1:2d}: killed {moment:.2f} s after the first checkpoint'
            f' with {stage}: {found or "equal"}',
            flush=True,
        )
    print(
        f'{args.times - wrong} of {args.times} equal the undisturbed run; '
        f'{late} runs had ended before their moment and were repeated'
    )
    sys.exit(bool(wrong))


if __name__ == '__main__':
    main()
