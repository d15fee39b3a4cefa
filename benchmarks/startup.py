"""Start-up of a search: tracing, grouping, verification and the report.

Each model in a process of its own, so that its peak of memory is its own. The
model's size is that of its parameters and buffers; the peak is the growth of
the process beyond its size after the model was built.

    python benchmarks/startup.py --models resnet152
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any, List

from common import Row, parser, report

DEFAULT = ('resnet152', 'efficientnet_b7', 'swin_base', 'yolov8_l')
MIB = 2**20


def resident() -> int:
    """Bytes of memory that the process has now."""
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak() -> int:
    """Most bytes of memory that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, verify: bool) -> Row:
    """One row of the table."""
    import torch
    from models import CASES, build, make_search

    case = CASES[name]
    plain = build(case)
    image = torch.zeros(1, 3, case.size, case.size)
    with torch.no_grad():
        started = time.perf_counter()
        plain.eval()(image, mode='tensor')
        forward = time.perf_counter() - started
    plain.train()
    tensors = [*plain.parameters(), *plain.buffers()]
    size = sum(t.numel() * t.element_size() for t in tensors)
    before = max(resident(), peak())
    started, used = time.perf_counter(), time.process_time()
    search = make_search(plain, case, verify=verify)
    used = time.process_time() - used
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    report_text = str(search.mutator.report())
    return {
        'model': name,
        'input': f'{case.size}^2',
        'units': len(search.mutator.units),
        'stages': len(search.mutator.depth_units),
        'layers': len(search.mutator.report().layers),
        'seconds': round(seconds, 2),
        'cpu_s': round(used, 2),
        'report_s': round(time.perf_counter() - started, 3),
        'report_lines': report_text.count('\n') + 1,
        'forward_s': round(forward, 2),
        'model_mib': round(size / MIB, 1),
        'extra_peak_mib': round((peak() - before) / MIB, 1),
        'extra_peak_to_model': round((peak() - before) / size, 2),
    }


def in_own_process(name: str, args: argparse.Namespace) -> Row:
    """The row of a model, measured by this file in a new process."""
    command = [sys.executable, __file__, '--only', name]
    command += ['--no-verify'] if args.no_verify else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f'{name}: {done.stderr.strip()[-2000:]}')
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the table and write it as JSON."""
    arguments = parser(__doc__)
    arguments.add_argument('--models', nargs='+', default=DEFAULT)
    arguments.add_argument(
        '--no-verify', action='store_true', help='without the proof'
    )
    arguments.add_argument('--only', help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.only:
        print(json.dumps(measure(args.only, not args.no_verify)))
        return
    rows: List[Any] = [in_own_process(name, args) for name in args.models]
    report('startup', rows, args)


if __name__ == '__main__':
    main()
