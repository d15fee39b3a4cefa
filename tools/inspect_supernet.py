"""Show the search space of a config; needs no data and trains nothing."""

import argparse

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.cli import command_line
from dms_mmrazor.engine import inspection
from dms_mmrazor.engine.search_config import (
    build_algorithm,
    find_resource_hook,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    command_line.add_config_arguments(parser)
    parser.add_argument(
        '--parts',
        choices=('stage', 'layer'),
        help='show what each of them contributes to the resources',
    )
    return parser.parse_args()


@command_line.one_line_errors
def main() -> None:
    """Print the report, then the target or why it cannot be reached."""
    args = parse_args()
    cfg = command_line.read_config(args.config, args.cfg_options)
    hook = find_resource_hook(cfg)
    algorithm = build_algorithm(cfg)
    hook.use_latency_table(algorithm)
    print('\n'.join(inspection.describe_supernet(algorithm, hook.divisor)))
    if args.parts:
        lines = inspection.describe_parts(algorithm.mutator, args.parts)
        print('\n'.join(['', *lines, '']))
    targets = hook.resolve(algorithm)
    print('\n'.join(inspection.describe_targets(algorithm, targets)))


if __name__ == '__main__':
    main()
