"""Write the structure file of a supernet narrowed by one ratio everywhere.

The baseline of a search: the same architecture at the same resource, without
a search. Train it with the search's own retraining config.
"""

import argparse

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.cli import command_line
from dms_mmrazor.engine.search_config import (
    build_algorithm,
    find_resource_hook,
)
from dms_mmrazor.search.export import uniform_structure
from dms_mmrazor.subnet import save_structure


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    command_line.add_config_arguments(parser)
    parser.add_argument('out', help='structure file to write')
    return parser.parse_args()


@command_line.one_line_errors
def main() -> None:
    """Narrow the config's supernet to the target of its ResourceHook."""
    args = parse_args()
    cfg = command_line.read_config(args.config, args.cfg_options)
    hook = find_resource_hook(cfg)
    algorithm = build_algorithm(cfg)
    targets = hook.resolve(algorithm)
    structure = uniform_structure(algorithm.mutator, targets, hook.divisor)
    save_structure(structure, args.out)


if __name__ == '__main__':
    main()
