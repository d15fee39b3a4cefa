"""The short training of one candidate by a config's own recipe."""

from copy import deepcopy
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from dms_mmrazor.baselines.config_runs import plain_config
from dms_mmrazor.cli import command_line
from dms_mmrazor.cli.training_length import (
    dataset_length,
    shorten_in_proportion,
)
from dms_mmrazor.engine.metric_choice import chosen_score, is_lower_better
from dms_mmrazor.engine.runner_access import plain_model
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.algorithms.sub_model import find_sub_model
from dms_mmrazor.ranking import reduced_data
from dms_mmrazor.ranking.reduced_network import (
    fewer_blocks,
    lower_resolution,
)
from dms_mmrazor.ranking.scores import Trajectory
from dms_mmrazor.ranking.trainings import (
    LANDSCAPE_BATCHES,
    DivergedError,
    Meter,
    State,
    loss_of_data,
    losses_on_line,
    trained_state,
)
from dms_mmrazor.subnet import load_structure
from dms_mmrazor.subnet.structure import structure_to_dict
from dms_mmrazor.type_names import has_type, type_name


class Reduction(NamedTuple):
    """How much less a short training is than the config's own.

    Attributes:
        epochs (int): Of the reduced data. Defaults to 2.
        subset (float): Portion of the images. Defaults to 0.1.
        classes (tuple[int], optional): Images of these classes alone, in
            training and validation. Defaults to None, all.
        resolution (float): Portion of an image's sides. Defaults to 1.
        repeats (float): Portion of the kept blocks of each stage. Defaults
            to 1.
    """

    epochs: int = 2
    subset: float = 0.1
    classes: Optional[Sequence[int]] = None
    resolution: float = 1.0
    repeats: float = 1.0


class ConfigRecipe:
    """Trains structures as a config does, but briefly.

    The schedule of the learning rate, warm-up and everything that is set in
    epochs or iterations shrinks with the training; no checkpoints are kept.

    Args:
        cfg (Config): Of a retraining (``DMSSubModel``), of a search, or of
            a plain training of the whole architecture.
        folder (str): For logs.
        reduction (Reduction): What is left of it. Defaults to
            ``Reduction()``.
        landscape_batches (int): Batches of the losses between initial and
            trained weights; 0 leaves them out. Defaults to 4.
        evaluate (bool): Validate at the end. Defaults to True.
        metric (str, optional): Key of the validation's metrics. Defaults to
            None, their first.
        lower_is_better (bool, optional): Of the metric. Defaults to None,
            what its name tells: see :func:`is_lower_better`.

    Raises:
        DMSError: If an argument is out of range, or the config is for
            several processes.
    """

    def __init__(
        self,
        cfg: Config,
        folder: str,
        reduction: Optional[Reduction] = None,
        landscape_batches: int = LANDSCAPE_BATCHES,
        evaluate: bool = True,
        metric: Optional[str] = None,
        lower_is_better: Optional[bool] = None,
    ) -> None:
        self.reduction = reduction or Reduction()
        if self.reduction.epochs < 1:
            raise DMSError(
                f'`epochs` must be at least 1, got {self.reduction.epochs}.'
            )
        if cfg.get('launcher', 'none') != 'none':
            raise DMSError(
                '`launcher`: each candidate is trained in one process; '
                'several at a time by `--jobs`.'
            )
        self.cfg = cfg
        self.folder = folder
        self.landscape_batches = landscape_batches
        self.evaluate = evaluate and cfg.get('val_dataloader') is not None
        self.metric = metric
        self.lower_is_better = lower_is_better
        if evaluate and metric and lower_is_better is None:
            is_lower_better(metric)  # asks now, not after a training

    @property
    def settings(self) -> Dict[str, Any]:
        """What results depend on, beside the config."""
        return {
            **self.reduction._asdict(),
            'landscape_batches': self.landscape_batches,
            'evaluate': self.evaluate,
            'metric': self.metric,
            'lower_is_better': self.lower_is_better,
        }

    def __call__(self, structure: str, seed: int) -> Trajectory:
        """Train one candidate.

        Args:
            structure (str): Path of its file.
            seed (int): Of weights, order and augmentation.
        """
        cfg = self.short_config(structure, seed)
        runner = command_line.build_runner(cfg)
        model = plain_model(runner)
        lower_resolution(model, self.reduction.resolution)
        device = next(model.parameters()).device
        iterations = cfg.train_cfg.get('max_iters')
        if iterations is None:
            iterations = cfg.train_cfg.max_epochs * len(
                runner.train_dataloader
            )
        meter = Meter(iterations, self.reduction.epochs, device)
        hook = MeterHook(meter, self.landscape_batches)
        runner.register_hook(hook, priority='VERY_LOW')
        try:
            runner.train()
        except DivergedError as reason:
            return Trajectory(
                meter.losses,
                meter.seconds,
                costs={'training': sum(meter.seconds)},
                diverged=str(reason),
            )
        return self._measured(runner, model, hook)

    def short_config(self, structure: str, seed: int) -> Config:
        """The config of one short training.

        Args:
            structure (str): Path of a candidate's file.
            seed (int): Of the training.
        """
        cfg = deepcopy(self.cfg)
        _use_structure(cfg, self._structure(structure))
        if cfg.model.get('type') is None:
            raise DMSError(f'{cfg.filename}: `model` has no `type`.')
        whole = dataset_length(cfg, cfg.train_dataloader.dataset)
        self._reduce_data(cfg)
        left = dataset_length(cfg, cfg.train_dataloader.dataset)
        shorten_in_proportion(cfg, self.reduction.epochs, whole, left)
        if not self.evaluate:
            # Its data would be read for nothing.
            cfg.update(val_dataloader=None, val_cfg=None, val_evaluator=None)
        cfg.work_dir = self.folder
        cfg.randomness = dict(seed=seed)
        cfg.experiment_name = f'seed{seed}'
        hooks = dict(cfg.get('default_hooks') or {})
        cfg.default_hooks = {**hooks, 'checkpoint': None}
        cfg.resume = False
        return cfg

    def _structure(self, path: str) -> Any:
        """The file itself, or a shallower structure as plain data."""
        if self.reduction.repeats == 1:
            return path
        structure = fewer_blocks(load_structure(path), self.reduction.repeats)
        return structure_to_dict(structure)

    def _reduce_data(self, cfg: Config) -> None:
        """Let loaders have a part of their data."""
        part = {'fraction': self.reduction.subset}
        if self.reduction.classes is not None:
            part['classes'] = list(self.reduction.classes)
        loaders = [(cfg.train_dataloader, part)]
        if self.reduction.classes is not None and self.evaluate:
            loaders.append((cfg.val_dataloader, {**part, 'fraction': 1.0}))
        for loader, arguments in loaders:
            loader.dataset = dict(
                type=reduced_data.TYPE, dataset=loader.dataset, **arguments
            )

    def _measured(
        self, runner: Runner, model: nn.Module, hook: 'MeterHook'
    ) -> Trajectory:
        """What is measured after the training, each with its cost."""
        meter = hook.meter
        costs = {'training': sum(meter.seconds)}
        landscape: List[float] = []
        metric = None
        if hook.batches:
            begun = meter.now()
            # Batch augmentations draw once, not anew at each point.
            data = [model.data_preprocessor(b, True) for b in hook.batches]
            landscape = losses_on_line(
                model, hook.start, lambda m: _mean_loss(runner, m, data)
            )
            costs['landscape'] = meter.now() - begun
        if self.evaluate:
            begun = meter.now()
            metric = chosen_score(
                runner.val_loop.run(),
                self.metric,
                self.lower_is_better,
                '--metric',
            )
            costs['evaluation'] = meter.now() - begun
        return Trajectory(
            meter.losses, meter.seconds, landscape, metric, costs
        )


class MeterHook(Hook):
    """Hands losses to a meter and keeps what the landscape needs.

    Attributes:
        start (dict[str, Tensor]): Weights before the training.
        batches (list): The first batches.

    Args:
        meter (Meter): Of this training.
        keep (int): Batches to keep.
    """

    def __init__(self, meter: Meter, keep: int) -> None:
        self.meter = meter
        self.keep = keep
        self.start: State = {}
        self.batches: List[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Remember the initial weights."""
        if self.keep:
            self.start = trained_state(plain_model(runner))
        self.meter.restart()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Optional[Dict[str, Any]] = None,
    ) -> None:
        """Count an iteration."""
        if len(self.batches) < self.keep:
            self.batches.append(data_batch)
        self.meter.add(torch.as_tensor(outputs['loss']))


def _mean_loss(
    runner: Runner, model: nn.Module, data: Sequence[Any]
) -> Tensor:
    """Mean of the losses of preprocessed batches."""
    losses = []
    for batch in data:
        with runner.optim_wrapper.optim_context(model):
            losses.append(loss_of_data(model, batch))
    return torch.stack(losses).mean()


def _use_structure(cfg: Config, structure: Any) -> None:
    """Let a config train a structure of its architecture."""
    kind = type_name(cfg.model)
    searches = 'mutator' in cfg.model or kind == 'DMSAlgorithm'
    found = None if searches else find_sub_model(cfg.model)
    if found is not None:
        _, part = found
        part.structure = structure
        if has_type(part.get('init_cfg'), 'Pretrained'):
            # Weights of the structure that was found do not fit another.
            part.pop('init_cfg')
        return
    architecture = cfg.model.architecture if searches else cfg.model
    model = dict(
        type='mmrazor.DMSSubModel',
        architecture=architecture.to_dict(),
        structure=structure,
    )
    plain = plain_config(cfg, model)
    for key in ('model', 'custom_hooks', 'optim_wrapper'):
        cfg.pop(key, None)
        cfg[key] = plain[key]
