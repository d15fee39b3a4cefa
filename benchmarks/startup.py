"""Start-up of a search, and its export: time and memory.

Tracing, grouping, verification and the report; then the export at half of the
MACs. Each model in a process of its own, so that its peak of memory is its
own. The model's size is that of its parameters and buffers; the peak is what
the process, or what is allocated on a GPU, grows by beyond what a plain
forward pass takes.

    python benchmarks/startup.py --models resnet152
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from typing import Any, List

import torch
from common import Row, parser, report

DEFAULT = ('resnet152', 'efficientnet_b7', 'swin_base', 'yolov8_l')
MIB = 2**20


class Peak:
    """Most memory that is taken from now on.

    Args:
        device (str): Where the model is.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        if device != 'cpu':
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return
        gc.collect()
        with open('/proc/self/clear_refs', 'w') as file:
            file.write('5')  # the peak begins with what is there now
        self.before = self._read()

    def extra(self) -> int:
        """Bytes beyond those at the beginning."""
        return self._read() - self.before

    def _read(self) -> int:
        if self.device != 'cpu':
            return torch.cuda.max_memory_allocated()
        with open('/proc/self/status') as file:
            line = next(line for line in file if line.startswith('VmHWM'))
        return int(line.split()[1]) * 1024


def measure(name: str, verify: bool, device: str) -> Row:
    """One row of the table."""
    from models import CASES, build, make_search

    from dms_mmrazor.search.export import export_subnet, uniform_structure

    case = CASES[name]
    plain = build(case).to(device)
    image = torch.zeros(1, 3, case.size, case.size, device=device)
    peak = Peak(device)
    with torch.no_grad():
        started = time.perf_counter()
        plain.eval()(image, mode='tensor')
        forward = time.perf_counter() - started
    maps = peak.extra()
    plain.train()
    tensors = [*plain.parameters(), *plain.buffers()]
    size = sum(t.numel() * t.element_size() for t in tensors)
    peak = Peak(device)
    started, used = time.perf_counter(), time.process_time()
    search = make_search(plain, case, verify=verify)
    used = time.process_time() - used
    seconds = time.perf_counter() - started
    prepared = max(peak.extra() - maps, 0)
    started = time.perf_counter()
    report_text = str(search.mutator.report())
    read = time.perf_counter() - started
    target = dict(macs=0.5 * search.mutator.table.full['macs'])
    structure = uniform_structure(search.mutator, target)
    kept = {unit.name: len(unit.kept) for unit in structure.units}
    search.mutator.set_choices(kept)
    peak, started = Peak(device), time.perf_counter()
    subnet = export_subnet(search, target)
    exporting = time.perf_counter() - started
    exported = max(peak.extra() - maps, 0)
    return {
        'model': name,
        'input': f'{case.size}^2',
        'units': len(search.mutator.units),
        'stages': len(search.mutator.depth_units),
        'layers': len(search.mutator.report().layers),
        'seconds': round(seconds, 2),
        'cpu_s': round(used, 2),
        'report_s': round(read, 3),
        'report_lines': report_text.count('\n') + 1,
        'forward_s': round(forward, 2),
        'model_mib': round(size / MIB, 1),
        'extra_peak_mib': round(prepared / MIB, 1),
        'extra_peak_to_model': round(prepared / size, 2),
        'export_s': round(exporting, 2),
        'export_params': round(
            subnet.structure.resources['params']['ratio'], 2
        ),
        'export_peak_to_model': round(exported / size, 2),
    }


def in_own_process(name: str, args: argparse.Namespace) -> Row:
    """The row of a model, measured by this file in a new process."""
    command = [sys.executable, __file__, '--only', name]
    command += ['--device', args.device]
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
        row = measure(args.only, not args.no_verify, args.device)
        print(json.dumps(row))
        return
    rows: List[Any] = [in_own_process(name, args) for name in args.models]
    report('startup', rows, args)


if __name__ == '__main__':
    main()
