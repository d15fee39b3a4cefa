"""The studies of found networks on a bed: what each compares.

    DMS_CIFAR10=cifar10.tar.xz python benchmarks/studies/study.py \
        found_and_retrained residual --jobs 2

goes on where it was stopped. ``--help`` lists the studies; what they found is
in docs/results.md. All methods get the same units, targets and trainings, and
each method the images of the same search unless that is what is compared.
"""

from typing import Any, Dict, List, NamedTuple, Sequence, Tuple, Union

import bed_runs
from searches import GRIDS

Variants = Dict[str, Union[Dict[str, Any], List[Dict[str, Any]]]]


class Study(NamedTuple):
    """What a study compares.

    Attributes:
        about (str): One line.
        methods (Sequence[str]): Names, see ``compare_methods.py``.
        variants (dict): Further methods: searches with settings of their
            own, see :func:`searches.search`; of several one is chosen on
            validation data.
        mode (str): 'retrained' from new weights, 'cut' out of a trained
            network, or 'finetuned' after that. Defaults to 'retrained'.
        targets (tuple): Resources relative to the network; none: the bed's.
        search_images (float): Of a search, relative to one retraining.
            Defaults to a tenth.
        search_iterations (int): Of a search, instead. Defaults to 0.
        pretrained (Sequence[str]): Methods that start from a trained
            network. Defaults to ().
        whole_training (bool): Whether trained networks have the images of a
            whole training, not those of a search. Defaults to False.
    """

    about: str
    methods: Sequence[str] = ()
    variants: Variants = {}
    mode: str = 'retrained'
    targets: Tuple[float, ...] = ()
    search_images: float = 0.1
    search_iterations: int = 0
    pretrained: Sequence[str] = ()
    whole_training: bool = False


MASKS = ('mes', 'sns', 'get', 'minmax')
TRAINED_FIRST: Variants = {
    '': {},
    'importance-': {'signal': 'importance'},
    'removal-': {'signal': 'removal'},
    'slow-': {'lr_factor': 1 / 3},
    'fast-': {'lr_factor': 3.0},
    # A fiftieth of the images of one retraining.
    'brief-': {'search_images': 0.02},
}
"""Searches from a trained network; `depth-uniform` is of the first named."""

CUT = ('uniform', 'l1-uniform', 'random', 'l1', 'taylor', 'greedy')

STUDIES = {
    'structure_only': Study(
        'Tables 2 and 11: 800 iterations, weights stay what they are',
        (*CUT, 'dms', 'dms-plain', 'dms-adam', 'depth-uniform', *MASKS),
        {'dms-gradient': {'importance': {'metric': 'gradient'}}},
        mode='cut',
        targets=(0.5, 0.25, 0.125),
        search_iterations=800,
    ),
    'found_and_retrained': Study(
        'structures of one resource, found in many ways',
        (
            *('uniform', 'random', 'compound', 'l1', 'taylor', 'greedy'),
            *('dms', 'depth-uniform', *MASKS),
        ),
    ),
    'importances': Study(
        'Table 6: what elements are ordered by',
        ('uniform',),
        {
            'dms': {},
            'dms-no-average': {'importance': {'decay': 0.0}},
            **{
                f'dms-{metric}': {'importance': {'metric': metric}}
                for metric in ('snip', 'fisher', 'index', 'l1')
            },
        },
    ),
    'supernets': Study(
        'Table 12: size and pretraining of the supernet, one target',
        ('uniform',),
        {
            'dms': {},
            'dms-smaller': {'scale': 0.75},
            'dms-larger': {'scale': 1.5},
            'dms-pretrained': {},
        },
        pretrained=('dms-pretrained',),
    ),
    'search_time': Study(
        'Table 14: images of the search relative to one retraining',
        ('uniform',),
        {
            f'dms-{share:g}': {'search_images': share}
            for share in (0.02, 0.05, 0.1, 0.2, 0.5)
        },
    ),
    'rates': Study(
        'Table 15: weight λ and learning rate of the structure, by rule',
        ('uniform',),
        {
            **{
                f'dms-price-{factor:g}': {'lr_factor': factor}
                for factor in (1 / 3, 1.0, 3.0)
            },
            **{
                f'dms-{rule}-{weight:g}-{rate:g}': {
                    'rule': rule,
                    'lr': rate,
                    'loss_weight': weight,
                }
                for rule, rates in (
                    ('plain', (1e-3, 1e-2, 5e-2)),
                    ('adam', (5e-4, 2e-3, 5e-3)),
                )
                for weight in (0.1, 1.0, 10.0)
                for rate in rates
            },
        },
    ),
    'signal': Study(
        'what could make prices better: time, averages, warm-up, refining',
        ('uniform',),
        {
            'dms': {},
            'dms-importance': {'signal': 'importance'},
            'dms-removal': {'signal': 'removal'},
            'dms-long': {'search_images': 0.5},
            'dms-removal-long': {'signal': 'removal', 'search_images': 0.5},
            'dms-importance-long': {
                'signal': 'importance',
                'search_images': 0.5,
            },
            'dms-slow-average': {'average': 0.98},
            'dms-warmup': {'warmup': 0.3, 'decay': 0.5},
            'dms-refine': {'decay': 0.4},
            'dms-soft-depth': {'hold_depth': False},
        },
    ),
    'trained_first': Study(
        'a trained network is there: what its weights say of structures',
        ('uniform', 'random', 'l1', 'taylor', 'greedy'),
        {
            **{
                f'dms-{name}pretrained': {**options, 'weights_lr': 0.25}
                for name, options in TRAINED_FIRST.items()
            },
            **{
                name: [{**o, 'weights_lr': 0.25} for o in GRIDS[name]]
                for name in MASKS
            },
        },
        pretrained=[
            *(f'dms-{name}pretrained' for name in TRAINED_FIRST),
            *MASKS,
        ],
        whole_training=True,
    ),
    'widths': Study(
        'Table 5: cut out of a trained network, then finetuned',
        (*CUT, 'torch-pruning'),
        {
            'dms-widths': {'widths_only': True, 'weights_lr': 0.25},
            'dms-depth': {'weights_lr': 0.25},
        },
        mode='finetuned',
        targets=(0.5, 0.25),
    ),
}


def main() -> None:
    """Plan, do what is missing, write the tables and the plot."""
    bed_runs.main(__doc__, STUDIES)


if __name__ == '__main__':
    main()
