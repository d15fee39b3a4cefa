"""The command that compares methods on the config of a search."""

import argparse
import os.path as osp
import sys
from typing import Dict, Sequence

from dms_mmrazor.baselines import comparison as compare
from dms_mmrazor.baselines.config_runs import ConfigRuns, searches
from dms_mmrazor.baselines.masks import MASKS
from dms_mmrazor.baselines.runs import Study
from dms_mmrazor.baselines.structures import STRUCTURES
from dms_mmrazor.cli import command_line
from dms_mmrazor.engine.search_config import find_resource_hook
from dms_mmrazor.errors import DMSError

FINETUNED_SEARCH = 0.1
"""Images of a search where what is found is finetuned: the default."""


def compare_methods(args: argparse.Namespace) -> None:
    """Plan a comparison, do what is missing, write tables and plot.

    Args:
        args (Namespace): Of ``tools/compare_methods.py``.
    """
    cfg = command_line.read_config(args.config, args.cfg_options)
    find_resource_hook(cfg)
    retrain = command_line.read_config(args.retrain) if args.retrain else None
    masks = (*MASKS, 'dms')
    known = (
        *(*STRUCTURES, *compare.TRIED, *masks),
        *(f'{name}{compare.PRETRAINED}' for name in masks),
    )
    unknown = [method for method in args.methods if method not in known]
    if unknown:
        raise DMSError(
            f'--methods: {unknown[0]!r} is unknown; known: {sorted(known)}.'
        )
    planned = _planned(args)
    name = osp.splitext(osp.basename(args.config))[0]
    folder = args.out_dir or osp.join('work_dirs', f'compare-{name}')
    study = Study(folder, compare.plan(planned))
    if args.run:
        runs = ConfigRuns(study, cfg, retrain, args.metric)
        study.perform(args.run, runs)
        return
    records = study.execute([sys.executable, *sys.argv], args.jobs)
    score = args.metric or 'score'
    print('\n'.join(compare.write(planned, records, folder, score)))


def _planned(args: argparse.Namespace) -> compare.Comparison:
    """The comparison that the command line asks for.

    Raises:
        DMSError: If a portion of the images is none.
    """
    common = {
        'config': args.config,
        'retrain': args.retrain,
        'cfg_options': args.cfg_options or {},
    }
    if set(args.methods) & {*compare.TRIED}:
        common['tried'] = args.tried
    if args.search_images is not None:
        if not 0 < args.search_images <= 1:
            raise DMSError(
                f'--search-images must be in (0, 1], got {args.search_images}.'
            )
        common['search_images'] = args.search_images
    pretrained = [m for m in args.methods if m.endswith(compare.PRETRAINED)]
    finetuned = args.finetune is not None
    if finetuned:
        common.update(_finetuning(args, pretrained))
    if pretrained or finetuned:
        if not 0 < args.pretrained_lr <= 1:
            raise DMSError(
                f'--pretrained-lr must be in (0, 1], got {args.pretrained_lr}.'
            )
        common['whole_training'] = True
        common['pretrained_lr'] = args.pretrained_lr
    grid = [{args.grid_key: value} for value in args.grid or []]
    if grid:
        common['lower_is_better'] = args.lower_is_better
    return compare.Comparison(
        args.methods,
        args.targets,
        list(range(args.seeds)),
        common,
        {method: grid for method in args.methods if searches(method)},
        retrained=not finetuned,
        finetuned=finetuned,
        pretrained=pretrained,
        trainings=args.trainings,
    )


def _finetuning(
    args: argparse.Namespace, pretrained: Sequence[str]
) -> Dict[str, float]:
    """Settings of a comparison of cut and finetuned networks.

    Raises:
        DMSError: If there is no finetuning beside the searches.
    """
    if pretrained:
        raise DMSError(
            '--finetune starts all searches from the trained network: write '
            f'{pretrained[0][: -len(compare.PRETRAINED)]!r}, not '
            f'{pretrained[0]!r}.'
        )
    search = FINETUNED_SEARCH
    if args.search_images is not None:
        search = args.search_images
    if not search < args.finetune <= 1:
        raise DMSError(
            f'--finetune must be in ({search:g}, 1]: it contains the images '
            f'of a search, --search-images; got {args.finetune:g}.'
        )
    return {'finetune': args.finetune, 'search_images': search}
