"""Write the result card of a search, also while it runs."""

import argparse
import os.path as osp

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.cli import command_line
from dms_mmrazor.visualization import write_card


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'work_dir', help='work dir of a search, or its folder `subnet`'
    )
    return parser.parse_args()


@command_line.one_line_errors
def main() -> None:
    """Write the card beside the subnet."""
    folder = parse_args().work_dir
    inner = osp.join(folder, 'subnet')
    print(f'Wrote {write_card(inner if osp.isdir(inner) else folder)}')


if __name__ == '__main__':
    main()
