import pytest
from mmengine.config import Config

from dms_mmrazor.cli.training_length import shorten_in_proportion
from dms_mmrazor.errors import DMSError


def config(train_cfg, schedulers, **kwargs):
    return Config(
        dict(
            train_dataloader=dict(batch_size=10),
            train_cfg=train_cfg,
            param_scheduler=schedulers,
            **kwargs,
        )
    )


def test_schedules_shrink_in_proportion():
    cfg = config(
        dict(by_epoch=True, max_epochs=100, val_interval=5),
        [
            # 500 of 100 · 100 iterations: a twentieth.
            dict(type='LinearLR', by_epoch=False, begin=0, end=500),
            dict(
                type='CosineAnnealingLR',
                T_max=95,
                begin=5,
                end=100,
                convert_to_iter_based=True,
            ),
            dict(type='MultiStepLR', milestones=[50, 75], gamma=0.1),
            dict(type='ExponentialLR', gamma=0.9),
        ],
        default_hooks=dict(
            param_scheduler=dict(warmup_epochs=3, max_epochs=100)
        ),
        custom_hooks=[dict(type='Switch', switch_epoch=80)],
    )
    # Two epochs of a tenth: 20 iterations.
    shorten_in_proportion(cfg, 2, whole=1000, left=100)
    warm, cosine, steps, decay = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == 2
    assert cfg.train_cfg.val_interval > 100
    assert not any(s['by_epoch'] for s in cfg.param_scheduler)
    assert (warm['begin'], warm['end']) == (0, 2)
    assert (cosine['begin'], cosine['end'], cosine['T_max']) == (1, 20, 19)
    assert steps['milestones'] == [10, 15]
    assert decay['gamma'] ** 20 == pytest.approx(0.9**100)
    assert cfg.default_hooks.param_scheduler.max_epochs == 2
    assert cfg.custom_hooks[0].switch_epoch == 2


def test_trainings_counted_in_iterations():
    cfg = config(
        dict(by_epoch=False, max_iters=1000),
        dict(type='CosineAnnealingLR', T_max=1000, by_epoch=False),
    )
    shorten_in_proportion(cfg, 3, whole=1000, left=100)
    assert cfg.train_cfg.max_iters == 30
    assert cfg.param_scheduler[0]['T_max'] == 30
    with pytest.raises(DMSError, match='max_epochs'):
        shorten_in_proportion(config(dict(type='Loop'), []), 1, 10, 10)
