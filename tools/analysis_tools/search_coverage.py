"""Make the table of what is searched in which architecture.

    python tools/analysis_tools/search_coverage.py [--only NAME …] [--again]

Each architecture of `coverage_models.py` is measured in a process of its
own. Rows that are already in the results stay, so that an interrupted run
goes on where it was; `--only` and `--again` measure anew.

With `--plain` it is models of timm and torchvision (`coverage_plain.py`) that
need no config, one after the other in this process.
"""

import argparse
import json
import os
import os.path as osp
import platform
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Dict, List, Sequence

import torch
from coverage_models import SECTIONS, Case
from coverage_plain import PLAIN_SECTIONS, PlainCase
from coverage_tables import render
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.cli.coverage import measure_coverage, measure_model
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

Row = Dict[str, Any]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--only',
        nargs='+',
        choices=sorted({**CASES, **PLAIN_CASES}),
        help='rows to measure',
    )
    parser.add_argument(
        '--plain', action='store_true', help='models of timm and torchvision'
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
    parser.add_argument('--measure', help=argparse.SUPPRESS)
    args = parser.parse_args()
    name = 'coverage_plain' if args.plain else 'coverage'
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


def measure(case: Case, structures: int, seed: int) -> Row:
    """One row, in this process."""
    started = time.time()
    try:
        coverage = measure_coverage(
            load_architecture(case),
            (1, 3, case.size, case.size),
            dict(case.mutator),
            structures,
            seed,
        )
        row = coverage._asdict()
        row['agreement'] = coverage.agreement._asdict()
    except DMSError as error:
        row = dict(error=str(error))
    return dict(row, size=case.size, seconds=round(time.time() - started, 1))


def measure_plain(case: PlainCase, structures: int, seed: int) -> Row:
    """One row of the plain models."""
    started = time.time()
    image = torch.rand(1, 3, case.size, case.size)
    try:
        coverage = measure_model(
            case.build, image, structures=structures, seed=seed
        )
        row = coverage._asdict()
        row['agreement'] = coverage.agreement._asdict()
    except DMSError as error:
        row = dict(error=str(error))
    except Exception as error:  # whatever a model's code may raise
        line = str(error).strip().splitlines() or ['']
        row = dict(failure=f'{type(error).__name__}: {line[0]}')
    return dict(row, size=case.size, seconds=round(time.time() - started, 1))


def measure_apart(name: str, args: argparse.Namespace) -> Row:
    """One row, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = osp.join(folder, 'row.json')
        command = [sys.executable, osp.abspath(__file__), '--measure', name]
        command += ['--seed', str(args.seed), '--results', path]
        command += ['--structures', str(args.structures)]
        try:
            subprocess.run(
                command,
                timeout=args.limit,
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        except subprocess.TimeoutExpired:
            return dict(failure=f'not ready after {args.limit} s')
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines() or ['']
            return dict(failure=lines[-1])
        with open(path) as file:
            return json.load(file)


def versions(names: Sequence[str]) -> Dict[str, str]:
    """Versions of the packages that are there."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def environment(args: argparse.Namespace) -> Row:
    """Versions, machine and settings of a row."""
    return dict(
        python=platform.python_version(),
        **versions(PLAIN_PACKAGES if args.plain else PACKAGES),
        machine=f'{os.cpu_count()} CPU cores, {torch.get_num_threads()} used',
        seed=args.seed,
        structures=args.structures,
    )


def save(path: str, rows: Dict[str, Row]) -> None:
    """Write all rows, in the order of the cases."""
    names = {**CASES, **PLAIN_CASES}
    ordered = {name: rows[name] for name in names if name in rows}
    write_text(path, f'{json.dumps(ordered, indent=1)}\n')


def wanted(args: argparse.Namespace, rows: Dict[str, Row]) -> List[str]:
    """Names of the rows to measure."""
    if args.only:
        return args.only
    cases = PLAIN_CASES if args.plain else CASES
    return [name for name in cases if args.again or name not in rows]


def main() -> None:
    """Measure what is missing, then write the tables."""
    args = parse_args()
    if args.measure:
        row = measure(CASES[args.measure], args.structures, args.seed)
        with open(args.results, 'w') as file:
            json.dump(row, file)
        return
    rows: Dict[str, Row] = {}
    if osp.exists(args.results):
        with open(args.results) as file:
            rows = json.load(file)
    for name in wanted(args, rows):
        if args.plain:
            row = measure_plain(PLAIN_CASES[name], args.structures, args.seed)
        else:
            row = measure_apart(name, args)
        rows[name] = dict(row, environment=environment(args))
        save(args.results, rows)
        said = row.get('failure') or row.get('error') or 'measured'
        print(f'{name}: {said}', flush=True)
    write_text(args.table, render(rows, args.plain))


if __name__ == '__main__':
    main()
