"""Draw the widths and blocks of a structure file as a picture."""

import argparse
import os.path as osp

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.cli import command_line
from dms_mmrazor.errors import DMSError
from dms_mmrazor.subnet import load_structure
from dms_mmrazor.visualization import plot_subnet, save_plot

FORMATS = ('.png', '.svg', '.pdf')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('structure', help='subnet.yaml of a search')
    parser.add_argument(
        '--out', help='picture (.png, .svg or .pdf); beside the file if absent'
    )
    parser.add_argument('--title', help='heading; the config by default')
    return parser.parse_args()


@command_line.one_line_errors
def main() -> None:
    """Read the structure and write the picture."""
    args = parse_args()
    out = args.out or osp.splitext(args.structure)[0] + '.png'
    if not out.lower().endswith(FORMATS):
        raise DMSError(f'--out must end with one of {FORMATS}, got {out}.')
    structure = load_structure(args.structure)
    config = osp.splitext(str(structure.search.get('config') or ''))[0]
    title = args.title or config or osp.basename(args.structure)
    save_plot(plot_subnet(structure, title), out)
    print(f'Wrote {out}.')


if __name__ == '__main__':
    main()
