"""Measure how long the layers of a search's supernet take on this machine.

The table serves as `ResourceHook(latency_table=…, target=dict(latency=0.6))`.
"""

import argparse
import os.path as osp

from mmengine.config import Config

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor import latency
from dms_mmrazor.cli import command_line
from dms_mmrazor.engine.search_config import (
    build_algorithm,
    find_resource_hook,
)
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.subnet import load_structure


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    command_line.add_config_arguments(parser)
    defaults = latency.Settings()
    parser.add_argument(
        '--out',
        help="table to write; by default the config's "
        '`ResourceHook.latency_table`, else work_dirs/<config>/latency.yaml',
    )
    parser.add_argument(
        '--device', default=defaults.device, help='cpu (default) or cuda'
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=defaults.batch_size,
        help='images in a batch; 1 by default',
    )
    parser.add_argument(
        '--threads', type=int, help="CPU threads; torch's choice by default"
    )
    parser.add_argument(
        '--divisor',
        type=int,
        help="measured widths are multiples of it; the config's by default",
    )
    for name in ('structures', 'rounds', 'seed'):
        default = getattr(defaults, name)
        parser.add_argument(
            f'--{name}', type=int, default=default, help=f'default: {default}'
        )
    parser.add_argument(
        '--show', metavar='TABLE', help='show a table; measure no layers'
    )
    parser.add_argument(
        '--subnet',
        nargs='+',
        metavar='YAML',
        help='structure files to measure beside the supernet and to compare '
        'with the predictions of the table',
    )
    return parser.parse_args()


def measure_table(
    cfg: Config, algorithm: DMSAlgorithm, args: argparse.Namespace
) -> latency.LatencyTable:
    """Measure a table and write it."""
    hook = find_resource_hook(cfg)
    settings = latency.Settings(
        device=args.device,
        batch_size=args.batch_size,
        threads=args.threads,
        divisor=hook.divisor if args.divisor is None else args.divisor,
        structures=args.structures,
        rounds=args.rounds,
        seed=args.seed,
    )
    table = latency.profile_latency(algorithm, settings)
    name = osp.splitext(osp.basename(args.config))[0]
    default = osp.join('work_dirs', name, 'latency.yaml')
    path = args.out or hook.latency_table or default
    latency.save_latency_table(table, path)
    print(f'Wrote {path}.')
    return table


def read_table(
    path: str, algorithm: DMSAlgorithm, here: bool
) -> latency.LatencyTable:
    """Read a table of the config's network, and of this machine if it must."""
    table = latency.load_latency_table(path)
    latency.check_network(table, path, algorithm.mutator)
    if here:
        latency.check_device(table, path)
    return table


@command_line.one_line_errors
def main() -> None:
    """Measure, write and show."""
    args = parse_args()
    cfg = command_line.read_config(args.config, args.cfg_options)
    structures = [load_structure(path) for path in args.subnet or []]
    algorithm = build_algorithm(cfg)
    if args.show:
        table = read_table(args.show, algorithm, bool(structures))
    else:
        table = measure_table(cfg, algorithm, args)
    print('\n'.join(latency.describe_latency_table(table)))
    if structures:
        rows = latency.compare_structures(
            algorithm, table, structures, args.rounds
        )
        for name, row in zip(['supernet', *args.subnet], rows):
            print(
                f'{name}: {row.measured:.3f} ms measured, '
                f'{row.predicted:.3f} ms predicted ({row.error:+.1%}); '
                f'{row.measured / rows[0].measured:.3f} of the supernet '
                f'measured, {row.predicted / rows[0].predicted:.3f} predicted '
                f'({row.paired_error:+.1%})'
            )


if __name__ == '__main__':
    main()
