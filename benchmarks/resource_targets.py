"""Whether CIFAR-10 searches end at their targets, and how closely.

One search for each row, with the config in configs/cifar10; each found
structure is exported twice, with any widths and with widths divisible by 8.
Rows that the JSON file has already are not run again.

    python benchmarks/resource_targets.py --iterations 400
"""

import argparse
import json
import os
import os.path as osp
import time
from typing import Any, Dict, List

from common import RESULTS, machine
from mmengine.config import Config
from mmengine.runner import Runner

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.engine.search_config import find_resource_hook
from dms_mmrazor.search.export import export_subnet

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
CONFIG = 'configs/cifar10/resnet28_dms-search_1xb128-4e_cifar10.py'
SEARCHES: Dict[str, Dict[str, Any]] = {
    'macs 0.75': dict(target=dict(macs=0.75)),
    'macs 0.5': dict(target=dict(macs=0.5)),
    'macs 0.25': dict(target=dict(macs=0.25)),
    'macs 0.1': dict(target=dict(macs=0.1)),
    'params 0.5': dict(target=dict(params=0.5)),
    'both 0.5': dict(target=dict(macs=0.5, params=0.5)),
}
DIVISORS = (1, 8)


def search_config(name: str, args: argparse.Namespace, folder: str) -> Config:
    """Config of one search: so many iterations, no validation."""
    cfg = Config.fromfile(osp.join(ROOT, CONFIG))
    cfg.train_cfg = dict(by_epoch=False, max_iters=args.iterations)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.train_dataloader.update(
        batch_size=args.batch_size, num_workers=0, persistent_workers=False
    )
    cfg.train_dataloader.sampler.type = 'InfiniteSampler'
    cfg.param_scheduler = [
        dict(type='CosineAnnealingLR', by_epoch=False, T_max=args.iterations)
    ]
    cfg.log_processor = dict(by_epoch=False)
    cfg.default_hooks.checkpoint = None
    cfg.custom_hooks[0].update(SEARCHES[name], divisor=1)
    cfg.randomness = dict(seed=args.seed)
    cfg.experiment_name = name.replace(', ', '_').replace(' ', '_')
    cfg.work_dir = osp.join(folder, cfg.experiment_name)
    return cfg


def run(name: str, args: argparse.Namespace) -> List[Dict[str, Any]]:
    """Search, and export with each divisor."""
    cfg = search_config(name, args, args.work_dir)
    started = time.process_time()
    runner = Runner.from_cfg(cfg)
    runner.train()
    seconds = time.process_time() - started
    algorithm = runner.model
    targets = find_resource_hook(cfg).resolve(algorithm)
    rows = []
    for divisor in DIVISORS:
        subnet = export_subnet(algorithm, targets, divisor)
        for kind, target in targets.items():
            row = subnet.structure.resources[kind]
            found = algorithm.mutator.resource(kind, hard=False)
            rows.append(
                dict(
                    search=name,
                    kind=kind,
                    divisor=divisor,
                    target=target,
                    searched=found / target - 1,
                    exported=row['subnet'],
                    under=1 - row['subnet'] / target,
                    changed=len(subnet.fit.changed),
                    units=len(subnet.fit.choices),
                    swaps=subnet.fit.swaps,
                    cpu_s=round(seconds),
                )
            )
    return rows


def table(rows: List[Dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        '| search to | divisor | target | search ended at | exported '
        '| under the target by | numbers changed |',
        '|---|---|---|---|---|---|---|',
    ]
    for row in rows:
        unit, scale = dict(macs=('M MACs', 1e6), params=('K params', 1e3))[
            row['kind']
        ]
        lines.append(
            f'| {row["search"]} | {row["divisor"]} '
            f'| {row["target"] / scale:.2f} {unit} '
            f'| {row["searched"]:+.2%} '
            f'| {row["exported"] / scale:.2f} {unit} '
            f'| {row["under"]:.2%} '
            f'| {row["changed"]} of {row["units"]} |'
        )
    return '\n'.join(lines)


def main() -> None:
    """Run what is missing, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--searches', nargs='+', default=list(SEARCHES))
    parser.add_argument('--iterations', type=int, default=400)
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--work-dir', default='work_dirs/resource_targets')
    parser.add_argument(
        '--out', default=osp.join(RESULTS, 'resource_targets.json')
    )
    args = parser.parse_args()
    os.chdir(ROOT)  # the config's data is relative to it
    rows: List[Dict[str, Any]] = []
    if osp.exists(args.out):
        with open(args.out) as file:
            rows = json.load(file)['rows']
    for name in args.searches:
        if not any(row['search'] == name for row in rows):
            rows += run(name, args)
            write(rows, args)
    print(table(rows))


def write(rows: List[Dict[str, Any]], args: argparse.Namespace) -> None:
    """Write all rows with what led to them."""
    environment = {
        **machine('cpu'),
        'config': CONFIG,
        'iterations': args.iterations,
        'batch_size': args.batch_size,
        'seed': args.seed,
    }
    os.makedirs(osp.dirname(args.out), exist_ok=True)
    with open(args.out, 'w') as file:
        json.dump({'environment': environment, 'rows': rows}, file, indent=1)


if __name__ == '__main__':
    main()
