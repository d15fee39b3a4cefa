"""Make the table of what is searched in which architecture.

    python tools/analysis_tools/search_coverage.py [--only NAME …] [--again]

Each architecture of `coverage_models.py` is measured in a process of its
own. Rows that are already in the results stay, so that an interrupted run
goes on where it was; `--only` and `--again` measure anew, `--render` writes
the tables alone.

With `--plain` it is models of timm and torchvision (`coverage_plain.py`) that
need no config; with `--group segmentation` it is models of mmsegmentation
and mmpose (`coverage_segmentation.py`).

Where a model stops with layers to exclude, they are excluded, as its error
says, and the row tells what was reached by that.
"""

import argparse
import json
import multiprocessing
import os
import os.path as osp
import platform
import re
import time
from ast import literal_eval
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Callable, Dict, List, Sequence, Union

import torch
from coverage_models import SECTIONS, Case
from coverage_plain import PLAIN_SECTIONS, PlainCase
from coverage_tables import SEGMENTATION_SECTIONS, render
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.cli.coverage import (
    Coverage,
    measure_coverage,
    measure_model,
)
from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import write_text

DOCS = osp.join(osp.dirname(osp.abspath(__file__)), '../../docs')
PACKAGES = (
    'torch',
    'mmengine',
    'mmcv',
    'mmrazor',
    'mmpretrain',
    'mmdet',
    'mmyolo',
    'mmsegmentation',
    'mmpose',
    'onnxruntime',
)
PLAIN_PACKAGES = ('torch', 'mmengine', 'mmrazor', 'timm', 'torchvision')
CASES = {
    name: case for part in SECTIONS.values() for name, case in part.items()
}
PLAIN_CASES = {
    name: case
    for part in PLAIN_SECTIONS.values()
    for name, case in part.items()
}

APART_CASES = {
    name: case
    for part in SEGMENTATION_SECTIONS.values()
    for name, case in part.items()
}
Row = Dict[str, Any]


def all_cases() -> Dict[str, Union[Case, PlainCase]]:
    """Those of all tables, by name."""
    return {**CASES, **PLAIN_CASES, **APART_CASES}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--only',
        nargs='+',
        choices=sorted(all_cases()),
        metavar='ROW',
        help='rows to measure, as the tables name them',
    )
    parser.add_argument(
        '--plain', action='store_true', help='models of timm and torchvision'
    )
    parser.add_argument(
        '--group',
        choices=['segmentation'],
        default='',
        help='models of mmsegmentation and mmpose',
    )
    parser.add_argument(
        '--again', action='store_true', help='measure all rows again'
    )
    parser.add_argument(
        '--structures', type=int, default=10, help='random ones of each row'
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--limit', type=int, default=900, help='seconds for one row'
    )
    parser.add_argument('--results', help='docs/coverage.json or the like')
    parser.add_argument('--table', help='docs/coverage.md or the like')
    parser.add_argument(
        '--render', action='store_true', help='write the tables alone'
    )
    args = parser.parse_args()
    name = 'coverage_plain' if args.plain else 'coverage'
    name = f'coverage_{args.group}' if args.group else name
    args.results = args.results or osp.join(DOCS, f'{name}.json')
    args.table = args.table or osp.join(DOCS, f'{name}.md')
    return args


def find_config(name: str) -> str:
    """Path of a config, which may be in a package: 'mmpretrain::…'."""
    package, _, path = name.rpartition('::')
    if not package:
        return osp.join(DOCS, '..', path)
    folder = osp.dirname(str(import_module(package).__file__))
    return osp.join(folder, '.mim', 'configs', path)


def load_architecture(case: Case) -> Row:
    """The model's config of a case, and its registry's scope set."""
    cfg = Config.fromfile(find_config(case.config))
    cfg.merge_from_dict(dict(case.options))
    init_default_scope(case.scope)
    model = ConfigDict(cfg.model.to_dict())
    for part in (model, model.get('backbone', {})):
        part.pop('init_cfg', None)  # no checkpoint is downloaded
    return model


def measure(case: Union[Case, PlainCase], structures: int, seed: int) -> Row:
    """One row, in this process."""
    started = time.process_time()
    row: Row = {}
    excluded: List[str] = []
    while True:
        try:
            coverage = measure_case(case, excluded, structures, seed)
        except DMSError as error:
            row.setdefault('error', str(error))
            more = set(advised(str(error))).difference(excluded)
            if not more:
                row['error'] = str(error)
                break
            excluded += sorted(more)
            continue
        except Exception as error:  # whatever a model's code may raise
            line = str(error).strip().splitlines() or ['']
            row['failure'] = f'{type(error).__name__}: {line[0]}'
            break
        row.update(coverage._asdict(), agreement=coverage.agreement._asdict())
        break
    if excluded:
        row['excluded'] = excluded
    seconds = round(time.process_time() - started, 1)
    return dict(row, size=case.size, cpu_seconds=seconds)


def measure_case(
    case: Union[Case, PlainCase],
    excluded: Sequence[str],
    structures: int,
    seed: int,
) -> Coverage:
    """Coverage of a case with some layers excluded."""
    mutator = dict(getattr(case, 'mutator', ()))
    if excluded:
        mutator['exclude'] = [*mutator.get('exclude', ()), *excluded]
    structures = case.structures or structures
    if isinstance(case, PlainCase):
        inputs = torch.rand(case.shape)
        return measure_model(case.build, inputs, mutator, structures, seed)
    size = (1, 3, case.size, case.size)
    architecture = load_architecture(case)
    return measure_coverage(architecture, size, mutator, structures, seed)


_ADVICE = re.compile(r'`mutator\.exclude=(\[.*?\])`')


def advised(message: str) -> List[str]:
    """What an error says to exclude."""
    found = _ADVICE.search(message)
    return list(literal_eval(found[1])) if found else []


def measure_apart(
    case: Union[Case, PlainCase], args: argparse.Namespace
) -> Row:
    """One row, in a process of its own, which has all imports already."""
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_measure_and_send,
        args=(sender, measure, case, args.structures, args.seed),
    )
    process.start()
    sender.close()
    try:
        if not receiver.poll(args.limit):
            return dict(failure=f'not ready after {args.limit} s')
        return receiver.recv()
    except EOFError:  # it was killed, as for want of memory
        process.join()
        return dict(failure=f'its process ended with {process.exitcode}')
    finally:
        process.kill()
        process.join()


def _measure_and_send(
    sender: Any, measure: Callable[..., Row], *args: Any
) -> None:
    """What the process does; logs of the models are not shown."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sender.send(measure(*args))


def versions(names: Sequence[str]) -> Dict[str, str]:
    """Versions of the packages that are there."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def environment(case: Union[Case, PlainCase], args: argparse.Namespace) -> Row:
    """Versions, machine and settings of a row."""
    return dict(
        python=platform.python_version(),
        **versions(PLAIN_PACKAGES if args.plain else PACKAGES),
        machine=f'{os.cpu_count()} CPU cores, {torch.get_num_threads()} used',
        seed=args.seed,
        structures=case.structures or args.structures,
    )


def save(path: str, rows: Dict[str, Row]) -> None:
    """Write all rows, in the order of the cases."""
    ordered = {name: rows[name] for name in all_cases() if name in rows}
    write_text(path, f'{json.dumps(ordered, indent=1)}\n')


def wanted(args: argparse.Namespace, rows: Dict[str, Row]) -> List[str]:
    """Names of the rows to measure."""
    if args.only or args.render:
        return args.only or []
    cases = PLAIN_CASES if args.plain else CASES
    cases = APART_CASES if args.group else cases
    return [name for name in cases if args.again or name not in rows]


def main() -> None:
    """Measure what is missing, then write the tables."""
    args = parse_args()
    rows: Dict[str, Row] = {}
    if osp.exists(args.results):
        with open(args.results) as file:
            rows = json.load(file)
    for name in wanted(args, rows):
        case = all_cases()[name]
        row = measure_apart(case, args)
        rows[name] = dict(row, environment=environment(case, args))
        save(args.results, rows)
        said = row.get('failure') or row.get('error') or 'measured'
        print(f'{name}: {said}', flush=True)
    write_text(args.table, render(rows, args.plain, args.group))


if __name__ == '__main__':
    main()
