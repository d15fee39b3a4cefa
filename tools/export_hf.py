"""Write a found language model as a folder that transformers loads."""

import argparse

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.cli import command_line
from dms_mmrazor.plugins.transformers.folder import export_folder


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('supernet', help='folder of the searched model')
    parser.add_argument('structure', help='subnet.yaml of the search')
    parser.add_argument('out', help='folder to write')
    parser.add_argument(
        '--weights',
        help='subnet.pth or a checkpoint of its finetuning; by default the '
        "supernet's own weights, cut",
    )
    parser.add_argument(
        '--dtype',
        choices=['float32', 'bfloat16', 'float16'],
        help="instead of the supernet's",
    )
    return parser.parse_args()


@command_line.one_line_errors
def main() -> None:
    """Export and say what was written."""
    args = parse_args()
    written = export_folder(
        args.supernet, args.structure, args.out, args.weights, args.dtype
    )
    print(
        f'{args.out}: {written["params"]:,} parameters; '
        + ', '.join(written['files'])
    )


if __name__ == '__main__':
    main()
