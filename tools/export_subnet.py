"""Make subnet.yaml and subnet.pth from any checkpoint of a search."""

import argparse
import os.path as osp

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.cli import command_line
from dms_mmrazor.cli.checkpoint_export import export_checkpoint
from dms_mmrazor.engine.search_config import (
    find_resource_hook,
    override_target,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    command_line.add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint of the search')
    parser.add_argument(
        '--out-dir',
        help="where to write; 'subnet' beside the checkpoint by default",
    )
    parser.add_argument(
        '--target',
        help="instead of the config's (or, before the end of the search, of "
        "the schedule's): 0.5, 1G or macs=1G,params=0.5",
    )
    parser.add_argument(
        '--divisor',
        type=int,
        help="exported widths are multiples of it, instead of the config's",
    )
    parser.add_argument(
        '--onnx', action='store_true', help='write subnet.onnx too'
    )
    return parser.parse_args()


@command_line.one_line_errors
def main() -> None:
    """Export and say what was written."""
    args = parse_args()
    cfg = command_line.read_config(args.config, args.cfg_options)
    override_target(cfg, args.target, args.divisor)
    beside = osp.join(osp.dirname(osp.abspath(args.checkpoint)), 'subnet')
    lines = export_checkpoint(
        cfg,
        find_resource_hook(cfg),
        args.checkpoint,
        args.out_dir or beside,
        scheduled=args.target is None,
        onnx=args.onnx,
    )
    print('\n'.join(lines))


if __name__ == '__main__':
    main()
