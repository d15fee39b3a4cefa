"""Compare a search with other ways to a network of the same size.

On the config of any search: every method finds a structure for the same
target, every structure is trained in the same way. Goes on where it was
stopped; writes tables, all runs and a plot into --out-dir.
"""

import argparse

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.baselines.command import compare_methods
from dms_mmrazor.cli import command_line


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    command_line.add_config_arguments(parser)
    parser.add_argument(
        '--methods',
        nargs='+',
        default=['uniform', 'dms', 'depth-uniform'],
        help='dms mes sns get minmax (searches), the same as dms-pretrained '
        '(from the trained whole network), ea random-best (try many '
        'structures), uniform random depth-uniform compound l1-uniform l1 l2 '
        'taylor greedy (without a search)',
    )
    parser.add_argument(
        '--targets',
        nargs='+',
        type=float,
        default=[0.5],
        help='resource relative to the supernet',
    )
    parser.add_argument(
        '--tried',
        type=int,
        default=1000,
        help='structures that ea and random-best try each',
    )
    parser.add_argument('--seeds', type=int, default=3, help='how many')
    parser.add_argument(
        '--trainings',
        type=int,
        default=1,
        help='of each structure that is found',
    )
    parser.add_argument(
        '--search-images',
        type=float,
        help='images of a search relative to one retraining: 0.1, or 0.02 '
        'to be fast; by default a search is as long as its config says',
    )
    parser.add_argument(
        '--pretrained-lr',
        type=float,
        default=0.25,
        help='learning rate of the weights in a search from the trained '
        "whole network, relative to the config's",
    )
    parser.add_argument(
        '--finetune',
        type=float,
        metavar='PORTION',
        help='cut all structures out of the same trained network and train '
        'on for this portion of a retraining, the search included, at '
        '--pretrained-lr: 0.25; by default they are trained from new weights',
    )
    parser.add_argument(
        '--retrain',
        help='config that trains a structure; by default the '
        "search's architecture is trained as the search trains it",
    )
    parser.add_argument(
        '--grid',
        nargs='+',
        type=float,
        help='values of --grid-key that every search is tried with; the '
        'best on validation data is used',
    )
    parser.add_argument('--grid-key', default='model.structure_step.lr')
    parser.add_argument(
        '--metric', help="the score; the evaluation's first by default"
    )
    command_line.add_direction_arguments(parser)
    parser.add_argument(
        '--jobs', type=int, default=1, help='processes side by side'
    )
    parser.add_argument('--out-dir')
    parser.add_argument('--run', help=argparse.SUPPRESS)
    return parser.parse_args()


@command_line.one_line_errors
def main() -> None:
    """Plan, run, write down."""
    compare_methods(parse_args())


if __name__ == '__main__':
    main()
