"""What the benchmarks share: timing in turn, tables, JSON."""

import argparse
import json
import os
import os.path as osp
import platform
import statistics
import sys
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence

import torch

RESULTS = osp.join(osp.dirname(osp.abspath(__file__)), 'results')
PACKAGES = (
    *('torch', 'mmcv', 'mmengine', 'mmrazor', 'mmpretrain', 'mmyolo'),
    'transformers',
)

Row = Dict[str, Any]
Times = Dict[str, List[float]]


class Ratio(NamedTuple):
    """Cost of one thing relative to another in the same rounds.

    Attributes:
        median (float): Median over the rounds.
        low (float): First quartile.
        high (float): Third quartile.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f'{self.median:.3f} ({self.low:.3f} … {self.high:.3f})'


def parser(text: str) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have.

    Args:
        text (str): Docstring of the benchmark.
    """
    result = argparse.ArgumentParser(description=text.splitlines()[0])
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    result.add_argument('--device', default=device)
    result.add_argument('--rounds', type=int, default=10)
    result.add_argument('--out', help='JSON file instead of results/*.json')
    result.add_argument(
        '--cpu-time',
        action='store_true',
        help='time of the processor, not of the clock: on a busy machine',
    )
    result.add_argument(
        '--add',
        action='store_true',
        help='keep the rows of other models in the JSON file',
    )
    return result


def synchronize(device: str) -> None:
    """Wait for everything that was started."""
    if device != 'cpu':
        torch.cuda.synchronize()


def interleave(
    functions: Mapping[str, Callable[[], Any]],
    args: argparse.Namespace,
    warmup: int = 2,
) -> Times:
    """Run functions in turn, so that a drifting machine hits all alike.

    Args:
        functions (Mapping[str, Callable]): What to time.
        args (Namespace): Of :func:`parser`: rounds, device and clock.
        warmup (int): Runs before the measured ones. Defaults to 2.

    Returns:
        dict[str, list[float]]: Seconds of each round.
    """
    clock = time.process_time if args.cpu_time else time.perf_counter
    times: Times = {name: [] for name in functions}
    names = list(functions)
    for index in range(warmup + args.rounds):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            synchronize(args.device)
            started = clock()
            functions[name]()
            synchronize(args.device)
            if index >= warmup:
                times[name].append(clock() - started)
    return times


def ratio(times: Times, name: str, base: str) -> Ratio:
    """Time of one function relative to another, round by round."""
    ratios = [a / b for a, b in zip(times[name], times[base])]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return Ratio(*(round(value, 4) for value in (middle, low, high)))


def median(values: Sequence[float]) -> float:
    """Median, to four digits."""
    return float(f'{statistics.median(values):.4g}')


def machine(device: str) -> Row:
    """Processor, versions and command of a run."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        'device': torch.cuda.get_device_name() if device != 'cpu' else 'cpu',
        'processor': _processor(),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'python': platform.python_version(),
        **versions,
        'command': ' '.join(['python', *map(_relative, sys.argv)]),
    }


def report(name: str, rows: Sequence[Row], args: argparse.Namespace) -> None:
    """Print the rows as one table and write them as JSON.

    Args:
        name (str): Name of the benchmark.
        rows (Sequence[Row]): With the same keys; lists and ratios are
            printed as text.
        args (Namespace): Of :func:`parser`.
    """
    columns = list(rows[0])
    table = [columns] + [[_text(row[key]) for key in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table)]
    for line in table:
        cells = (text.ljust(width) for text, width in zip(line, widths))
        print('| ' + ' | '.join(cells) + ' |')
        if line is columns:
            print('|' + '|'.join('-' * (width + 2) for width in widths) + '|')
    environment = machine(args.device)
    print(', '.join(f'{key} {value}' for key, value in environment.items()))
    suffix = '' if args.device == 'cpu' else f'-{args.device}'
    path = args.out or osp.join(RESULTS, f'{name}{suffix}.json')
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    result = {'environment': environment, 'rows': list(rows)}
    if args.add and osp.exists(path):
        result = _added(path, result)
    with open(path, 'w') as file:
        json.dump(result, file, indent=1)
        file.write('\n')


def _added(path: str, result: Dict[str, Any]) -> Dict[str, Any]:
    """New rows behind those of other models, with all commands."""
    with open(path) as file:
        old = json.load(file)
    new = {next(iter(row.values())) for row in result['rows']}
    kept = [row for row in old['rows'] if next(iter(row.values())) not in new]
    commands = [
        old['environment']['command'],
        result['environment']['command'],
    ]
    environment = {**result['environment'], 'command': '; '.join(commands)}
    return {'environment': environment, 'rows': kept + result['rows']}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f'{value:.4g}'
    return str(value)


def _processor() -> str:
    """Model of the processor."""
    if osp.exists('/proc/cpuinfo'):
        with open('/proc/cpuinfo') as file:
            for line in file:
                if line.startswith('model name'):
                    return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def _relative(path: str) -> str:
    """Paths in the repository as its user would type them."""
    root = osp.dirname(osp.dirname(osp.abspath(__file__)))
    return osp.relpath(path, root) if osp.isabs(path) else path
