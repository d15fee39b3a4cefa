"""Trainings that are shorter than their config asks for."""

import itertools
import math
from copy import deepcopy
from typing import Any, Dict, List, Mapping

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner

from dms_mmrazor.errors import DMSError

_WARMUP = 0.05
"""Part of a shortened training in which its learning rate rises."""

NEVER = 10**9
"""No validation within the training."""

LENGTHS = (
    'begin',
    'end',
    'T_max',
    'milestones',
    'step_size',
    'total_steps',
    'periods',
)
"""Arguments of schedulers that are epochs or iterations."""

EPOCHS = (
    'max_epochs',
    'total_epochs',
    'switch_epoch',
    'num_last_epochs',
    'begin_epoch',
    'warmup_epochs',
    'stop_epoch',
)
ITERATIONS = ('begin_iter', 'warmup_iters', 'warmup_mim_iter', 'switch_iter')
"""Arguments of hooks that are epochs and iterations of the training."""


def images_of(cfg: Config) -> float:
    """Images that a training sees, on one process.

    Raises:
        DMSError: If the config says no length.
    """
    train_cfg, loader = cfg.get('train_cfg') or {}, cfg.train_dataloader
    batch = loader.get('batch_size') or 1
    if train_cfg.get('max_iters'):
        return train_cfg['max_iters'] * batch
    if not train_cfg.get('max_epochs'):
        raise DMSError(
            '`train_cfg` has neither `max_epochs` nor `max_iters`: the length '
            'of the training is unknown.'
        )
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    # An epoch is what the loader makes of it: samplers repeat and drop.
    length = len(Runner.build_dataloader(loader, seed=0))
    return train_cfg['max_epochs'] * length * batch


def shorten(cfg: Config, images: float) -> None:
    """Train for so many images, in place.

    The weights' learning rate rises for 5 % of the training and falls in a
    cosine to 0, whatever schedule the config had; validation and the
    checkpoint come at the end.

    Args:
        cfg (Config): Of a search.
        images (float): Images on one process, > 0.

    Raises:
        DMSError: If that is less than two steps.
    """
    batch = cfg.train_dataloader.get('batch_size') or 1
    steps = round(images / batch)
    if steps < 2:
        raise DMSError(
            f'{images:g} images are {steps} steps of '
            f'`train_dataloader.batch_size={batch}`: a search needs more.'
        )
    cfg.train_cfg = dict(by_epoch=False, max_iters=steps, val_interval=steps)
    rise = max(round(_WARMUP * steps), 1)
    cfg.param_scheduler = [
        dict(
            type='LinearLR',
            start_factor=1 / rise,
            begin=0,
            end=rise,
            by_epoch=False,
        ),
        dict(
            type='CosineAnnealingLR',
            T_max=steps - rise,
            begin=rise,
            end=steps,
            by_epoch=False,
        ),
    ]
    hooks = cfg.setdefault('default_hooks', {})
    saving = hooks.get('checkpoint') or {}
    hooks['checkpoint'] = dict(
        saving,
        type=saving.get('type', 'CheckpointHook'),
        by_epoch=False,
        interval=steps,
    )
    cfg.log_processor = dict(cfg.get('log_processor') or {}, by_epoch=False)


def shorten_to_portion(cfg: Config, portion: float, key: str) -> None:
    """Train for a portion of the images of a config, in place.

    Args:
        cfg (Config): Of a search.
        portion (float): In (0, 1].
        key (str): Option that says so, for messages.

    Raises:
        DMSError: If it is outside its range.
    """
    if not 0 < portion <= 1:
        raise DMSError(f'{key} must be in (0, 1], got {portion:g}.')
    shorten(cfg, portion * images_of(cfg))


def dataset_length(cfg: Config, dataset: Mapping[str, Any]) -> int:
    """Samples of a dataset of a config."""
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    built = DATASETS.build(deepcopy(dict(dataset)))
    try:
        return len(built)
    except TypeError:
        raise DMSError(
            '`train_dataloader.dataset` has no length: a part of it cannot '
            'be drawn. Give a dataset with a length.'
        ) from None


def shorten_in_proportion(
    cfg: Config, epochs: int, whole: int, left: int
) -> None:
    """Train a config for some epochs of a part of its data.

    Schedulers are turned to iterations, in proportion to the training's
    length, whatever they counted before.

    Args:
        cfg (Config): It is changed in place.
        epochs (int): Of the part.
        whole (int): Samples of the whole data.
        left (int): Samples of the part.

    Raises:
        DMSError: If the config does not say how long it trains.
    """
    old, train = training_length(cfg, whole), cfg.train_cfg
    iterations = epochs * max(_batches(cfg.train_dataloader, left), 1)
    if train.get('max_epochs'):
        train.max_epochs = epochs
    else:
        train.max_iters = iterations
    train.val_interval = NEVER
    train.pop('dynamic_intervals', None)
    if cfg.get('param_scheduler'):
        cfg.param_scheduler = shortened_schedulers(cfg, old, iterations)
    old_epochs, old_iterations = old[True], old[False]
    factors = {key: epochs / old_epochs for key in EPOCHS}
    factors.update({key: iterations / old_iterations for key in ITERATIONS})
    named = (cfg.get('default_hooks') or {}).values()
    for hook in itertools.chain(named, cfg.get('custom_hooks') or []):
        for key in set(factors) & set(hook or {}):
            if isinstance(hook[key], (int, float)):
                value = factors[key] * hook[key]
                whole_number = isinstance(hook[key], int)
                hook[key] = round(value) if whole_number else value


def training_length(cfg: Config, whole: int) -> Dict[bool, float]:
    """How long a config trains: by_epoch → epochs or iterations.

    Args:
        cfg (Config): Of a training.
        whole (int): Samples of its data.

    Raises:
        DMSError: If the config does not say it.
    """
    loader, train = cfg.train_dataloader, cfg.train_cfg
    if train.get('max_epochs'):
        iterations = train.max_epochs * _batches(loader, whole)
        return {True: train.max_epochs, False: iterations}
    if train.get('max_iters'):
        epochs = train.max_iters * (loader.get('batch_size') or 1) / whole
        return {True: epochs, False: train.max_iters}
    raise DMSError(
        f'{cfg.filename}: `train_cfg` has neither `max_epochs` nor '
        '`max_iters`.'
    )


def _batches(loader: Mapping[str, Any], samples: int) -> int:
    """Iterations of an epoch."""
    rounded = math.floor if loader.get('drop_last') else math.ceil
    return rounded(samples / (loader.get('batch_size') or 1))


def shortened_schedulers(
    cfg: Config, old: Mapping[bool, float], iterations: int
) -> List[Dict[str, Any]]:
    """Schedulers of a config for so many iterations.

    Args:
        cfg (Config): Of a training.
        old (Mapping[bool, float]): Its length, see
            :func:`training_length`.
        iterations (int): The new length.
    """
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    return [_scheduler_of_length(s, old, iterations) for s in schedulers]


def _scheduler_of_length(
    scheduler: Mapping[str, Any], old: Mapping[bool, float], new: int
) -> Dict[str, Any]:
    """A scheduler of a training of another length, by iteration.

    Args:
        scheduler (Mapping): Of the config.
        old (Mapping[bool, float]): Length in epochs (True) and iterations.
        new (int): Iterations of the short training.
    """
    short = dict(scheduler)
    by_epoch = short.pop('by_epoch', True)
    short.pop('convert_to_iter_based', None)
    factor = new / old[bool(by_epoch)]
    for key in LENGTHS:
        value = short.get(key)
        if isinstance(value, (list, tuple)):
            short[key] = [round(factor * item) for item in value]
        elif value is not None and value < NEVER:
            short[key] = max(round(factor * value), key != 'begin')
    if 'end' in short:
        short['end'] = max(short['end'], short.get('begin', 0) + 2)
    if str(short.get('type')).startswith('Exponential') and 'gamma' in short:
        short['gamma'] = short['gamma'] ** (1 / factor)
    return {**short, 'by_epoch': False}
