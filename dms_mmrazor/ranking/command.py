"""What ``tools/rank_subnets.py`` does."""

import argparse
import os.path as osp
import sys
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_checkpoint

from dms_mmrazor.baselines.runs import Record, Run, Study
from dms_mmrazor.cli import command_line
from dms_mmrazor.errors import DMSError
from dms_mmrazor.ranking import candidates as made
from dms_mmrazor.ranking import reduced_data
from dms_mmrazor.ranking.config_recipe import ConfigRecipe, Reduction
from dms_mmrazor.ranking.rank import (
    by_seed,
    check_obtainable,
    digest,
    plan,
)
from dms_mmrazor.ranking.report import summarize, write
from dms_mmrazor.subnet import load_structure

REDUCTIONS = ('part', 'random-classes', 'clusters')


def rank_from_command_line(args: argparse.Namespace) -> None:
    """Plan, train what is missing, write table, JSON and plot.

    Args:
        args (Namespace): Of ``tools/rank_subnets.py``.
    """
    cfg = command_line.read_config(args.config, args.cfg_options)
    name = osp.splitext(osp.basename(args.config))[0]
    folder = args.out_dir or osp.join('work_dirs', f'rank-{name}')
    paths = _structures(args, folder)
    structures = [load_structure(path) for path in paths]
    reduction = _reduction(args, cfg)
    recipe = _recipe(args, cfg, folder, reduction)
    check_obtainable(args.score, recipe, len(paths))
    common = {
        'config': args.config,
        'cfg_options': args.cfg_options or {},
        **recipe.settings,
    }
    contents = {path: digest(path) for path in paths}
    runs = plan(paths, list(range(args.seeds)), common, contents)
    study = Study(folder, runs)
    if args.run:
        study.perform(args.run, _Trainings(args, cfg, study, reduction))
        return
    command = [sys.executable, *sys.argv]
    if reduction.classes is not None:
        # Found once, not by every process.
        command += ['--keep-classes', *map(str, reduction.classes)]
    records = study.execute(command, args.jobs, devices=_devices(args.jobs))
    ranking = summarize(
        args.score,
        by_seed(runs, records),
        {p: made.resources_of(s) for p, s in zip(paths, structures)},
        made.common_budget(structures),
    )
    print('\n'.join(write(ranking, folder, list(records.values()))))


class _Trainings:
    """Does the runs of a ranking.

    Args:
        args (Namespace): Of the tool.
        cfg (Config): What trains a structure.
        study (Study): Where files go.
        reduction (Reduction): How much shorter.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        cfg: Config,
        study: Study,
        reduction: Reduction,
    ) -> None:
        self.args = args
        self.cfg = cfg
        self.study = study
        self.reduction = reduction

    def __call__(
        self, run: Run, needs: Mapping[str, Record]
    ) -> Dict[str, Any]:
        """Train one candidate with one seed."""
        folder = self.study.file(run.name)
        recipe = _recipe(self.args, self.cfg, folder, self.reduction)
        settings = run.settings
        found = recipe(settings['candidate'], settings['seed'])
        return found._asdict()


def _recipe(
    args: argparse.Namespace, cfg: Config, folder: str, reduction: Reduction
) -> ConfigRecipe:
    return ConfigRecipe(
        cfg,
        folder,
        reduction,
        args.landscape_batches,
        not args.no_evaluation,
        args.metric,
        args.lower_is_better,
    )


def _structures(args: argparse.Namespace, folder: str) -> List[str]:
    """Paths of all candidates; those that are made are written first.

    Raises:
        DMSError: If checkpoints or perturbations lack ``--search``.
    """
    found = [p for p in args.structures if not p.endswith('.pth')]
    checkpoints = [p for p in args.structures if p.endswith('.pth')]
    if not checkpoints and not args.perturb:
        return found
    if args.search is None:
        raise DMSError(
            '--search must name the config of the search, for candidates '
            'from its checkpoints (*.pth) and for --perturb.'
        )
    search = command_line.read_config(args.search)
    target = osp.join(folder, 'candidates')
    found += made.from_checkpoints(search, checkpoints, target)
    if args.perturb:
        found += made.write_perturbed(
            search, found, args.perturb, target, args.perturb_scale
        )
    return found


def _reduction(args: argparse.Namespace, cfg: Config) -> Reduction:
    """How much shorter the trainings are, classes chosen."""
    classes: Optional[Tuple[int, ...]] = None
    if args.reduce != 'part':
        classes = tuple(args.keep_classes or _classes(args, cfg))
    return Reduction(
        args.epochs, args.subset, classes, args.resolution, args.repeats
    )


def _classes(args: argparse.Namespace, cfg: Config) -> List[int]:
    """Classes to keep.

    Raises:
        DMSError: If an option that this takes is missing.
    """
    if args.classes is None:
        raise DMSError(
            f'--reduce {args.reduce} needs --classes, how many to keep.'
        )
    if args.reduce == 'random-classes':
        return reduced_data.random_classes(
            _number_of_classes(cfg), args.classes
        )
    if args.features is None:
        raise DMSError(
            '--reduce clusters needs --features CONFIG CHECKPOINT, a trained '
            'classifier of the same classes.'
        )
    config, checkpoint = args.features
    other = command_line.read_config(config)
    init_default_scope(other.get('default_scope', 'mmengine'))
    model_cfg = dict(other.model)
    if other.get('data_preprocessor') is not None:
        model_cfg.setdefault('data_preprocessor', other.data_preprocessor)
    model = MODELS.build(model_cfg)
    load_checkpoint(model, checkpoint, map_location='cpu')
    loader = dict(other.val_dataloader or other.train_dataloader)
    loader['sampler'] = dict(type='DefaultSampler', shuffle=True)
    vectors = reduced_data.class_vectors(
        model, Runner.build_dataloader(loader, seed=0)
    )
    return reduced_data.representative_classes(vectors, args.classes)


def _number_of_classes(cfg: Config) -> int:
    """Classes of the training data.

    Raises:
        DMSError: If the data do not say it.
    """
    loader = {**cfg.train_dataloader, 'num_workers': 0}
    loader.pop('persistent_workers', None)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    dataset = Runner.build_dataloader(loader, seed=0).dataset
    names = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if not names:
        raise DMSError(
            f'--reduce random-classes: {type(dataset).__name__} does not say '
            'how many classes it has; use --reduce part.'
        )
    return len(names)


def _devices(jobs: int) -> List[str]:
    """Accelerators to deal out to processes."""
    number = torch.cuda.device_count()
    return [str(i) for i in range(number)] if min(number, jobs) > 1 else []
