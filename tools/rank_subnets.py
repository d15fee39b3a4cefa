"""Rank structures of one budget by a short training, before the long one.

Each candidate is trained by the config's own recipe, on a part of its data,
for a few epochs and with several seeds. Goes on where it was stopped; writes
ranking.md, .json and .png into --out-dir.
"""

import argparse

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.cli import command_line
from dms_mmrazor.ranking.command import REDUCTIONS, rank_from_command_line
from dms_mmrazor.ranking.rank import DEFAULT_SCORE
from dms_mmrazor.ranking.scores import SCORES, WORTH

SCORE_HELP = '\n'.join(f'  {name}: {text}' for name, text in WORTH.items())
EPILOG = f"""scores, higher is better:
{SCORE_HELP}
  The figures are Kendall's tau with the accuracy of 200 epochs among networks
  of equal FLOPs, after 12 epochs, on CIFAR-10 / CIFAR-100 / ImageNet16-120,
  computed from the tables released with MOTE-NAS (NAS-Bench-201). All scores
  that were measured are in the table, whatever --score orders it by.
"""


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command_line.add_config_arguments(parser)
    parser.add_argument(
        'structures',
        nargs='+',
        help='subnet.yaml files; with --search also checkpoints of a search',
    )
    parser.add_argument('--score', default=DEFAULT_SCORE, choices=SCORES)
    parser.add_argument(
        '--epochs', type=int, default=2, help='of the reduced data; default 2'
    )
    parser.add_argument(
        '--subset',
        type=float,
        default=0.1,
        help='portion of the training samples; default 0.1',
    )
    parser.add_argument(
        '--seeds', type=int, default=2, help='how many; default 2'
    )
    parser.add_argument(
        '--reduce',
        choices=REDUCTIONS,
        default='part',
        help='part: samples of all classes; or of --classes classes alone, '
        'random ones or those that represent clusters of --features',
    )
    parser.add_argument('--classes', type=int, help='how many to keep')
    parser.add_argument(
        '--features',
        nargs=2,
        metavar=('CONFIG', 'CHECKPOINT'),
        help='trained classifier whose outputs are clustered',
    )
    parser.add_argument(
        '--resolution',
        type=float,
        default=1.0,
        help="portion of an image's sides; classifiers only",
    )
    parser.add_argument(
        '--repeats',
        type=float,
        default=1.0,
        help='portion of the kept blocks of each stage',
    )
    parser.add_argument(
        '--landscape-batches',
        type=int,
        default=4,
        help='batches of the losses between initial and trained weights; 0 '
        'leaves them out',
    )
    parser.add_argument(
        '--no-evaluation',
        action='store_true',
        help='no validation: all scores but accuracy',
    )
    parser.add_argument(
        '--metric', help="the accuracy; the validation's first by default"
    )
    command_line.add_direction_arguments(parser)
    parser.add_argument(
        '--search', help='config of the search, for checkpoints and --perturb'
    )
    parser.add_argument(
        '--perturb',
        type=int,
        default=0,
        help='so many structures near each one, of the same budget, as well',
    )
    parser.add_argument('--perturb-scale', type=float, default=0.2)
    parser.add_argument(
        '--jobs', type=int, default=1, help='processes side by side'
    )
    parser.add_argument('--out-dir')
    parser.add_argument('--run', help=argparse.SUPPRESS)
    parser.add_argument(
        '--keep-classes', nargs='+', type=int, help=argparse.SUPPRESS
    )
    return parser.parse_args()


@command_line.one_line_errors
def main() -> None:
    """Plan, train, write down."""
    rank_from_command_line(parse_args())


if __name__ == '__main__':
    main()
