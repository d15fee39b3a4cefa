"""A training for a part of the images that its config asks for."""

from mmengine.config import Config
from mmengine.runner import Runner

from dms_mmrazor.errors import DMSError

_WARMUP = 0.05
"""Part of a shortened training in which its learning rate rises."""


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
