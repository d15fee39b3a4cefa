"""Options of train.py that need no training."""

import os
import runpy
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from dms_mmrazor.errors import DMSError

TRAIN = Path(__file__).parents[2] / 'tools' / 'train.py'


@pytest.fixture(scope='module')
def train():
    return runpy.run_path(str(TRAIN))


@pytest.fixture
def parse(train, monkeypatch):
    def parse_args(*args):
        monkeypatch.setattr(sys, 'argv', ['train.py', 'config.py', *args])
        return train['parse_args']()

    return parse_args


@pytest.fixture
def with_gpu(train, monkeypatch):
    """Pretend that there is one: the config is all that is looked at."""
    namespace = train['use_amp'].__globals__
    monkeypatch.setitem(namespace, 'get_device', lambda: 'cuda')


def config(**optim_wrapper):
    return Config(dict(optim_wrapper=optim_wrapper, work_dir='nowhere'))


@pytest.mark.parametrize('given', [{}, {'type': 'mmengine.OptimWrapper'}])
def test_amp_keeps_the_constructor(train, parse, with_gpu, given):
    cfg = config(
        constructor='mmrazor.DMSOptimWrapperConstructor',
        paramwise_cfg=dict(norm_decay_mult=0.0),
        **given,
    )
    train['apply_options'](cfg, parse('--amp'))
    wrapper = cfg.optim_wrapper
    assert wrapper.type == 'AmpOptimWrapper'
    assert wrapper.loss_scale == 'dynamic'
    assert wrapper.constructor == 'mmrazor.DMSOptimWrapperConstructor'
    assert wrapper.paramwise_cfg.norm_decay_mult == 0.0


def test_amp_keeps_a_loss_scale(train, parse, with_gpu):
    cfg = config(type='AmpOptimWrapper', loss_scale=512.0)
    train['apply_options'](cfg, parse('--amp'))
    assert cfg.optim_wrapper.loss_scale == 512.0


def test_amp_does_not_replace_other_wrappers(train, parse, with_gpu):
    with pytest.raises(DMSError, match='ApexOptimWrapper'):
        train['apply_options'](config(type='ApexOptimWrapper'), parse('--amp'))


def test_auto_scale_lr_needs_a_base(train, parse):
    cfg = config()
    with pytest.raises(DMSError, match='base_batch_size'):
        train['apply_options'](cfg, parse('--auto-scale-lr'))
    cfg.auto_scale_lr = dict(base_batch_size=64)
    train['apply_options'](cfg, parse('--auto-scale-lr'))
    assert cfg.auto_scale_lr.enable


def test_no_validate(train, parse):
    cfg = Config(dict(val_cfg=dict(), val_dataloader=dict(), val_evaluator=1))
    cfg.work_dir = 'nowhere'
    train['apply_options'](cfg, parse('--no-validate'))
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None


@pytest.mark.parametrize('option', ['--local_rank', '--local-rank'])
def test_rank_of_either_launcher(parse, option, monkeypatch):
    from dms_mmrazor.cli.command_line import prepare_launch

    monkeypatch.setenv('LOCAL_RANK', 'removed again after the test')
    monkeypatch.delenv('LOCAL_RANK')
    cfg = Config(dict())
    prepare_launch(cfg, parse(f'{option}=3'))
    assert os.environ['LOCAL_RANK'] == '3'
    assert cfg.work_dir == os.path.join('./work_dirs', 'config')
    prepare_launch(cfg, parse(f'{option}=1'))
    assert os.environ['LOCAL_RANK'] == '3'


def test_resume_without_a_path_means_the_latest(parse):
    assert parse('--resume').resume == 'auto'
    assert parse('--resume', 'a.pth').resume == 'a.pth'
    assert parse().resume is None


def test_a_portion_of_a_training(train, parse, workspace):
    cfg = Config.fromfile(str(workspace / 'search.py'))
    cfg.work_dir = 'nowhere'
    cfg.param_scheduler = dict(type='MultiStepLR', milestones=[100])
    train['apply_options'](cfg, parse('--portion', '0.5'))
    assert cfg.train_cfg.max_iters == 4 and not cfg.train_cfg.by_epoch
    assert cfg.param_scheduler[-1].end == 4
    assert cfg.default_hooks.checkpoint.interval == 4
    # 40 images in batches of 4, for 6 epochs; a tenth of that is 6 steps.
    cfg.train_cfg = dict(by_epoch=True, max_epochs=6)
    cfg.default_scope = 'mmpretrain'  # types of a dataset have no prefix
    train['apply_options'](cfg, parse('--portion', '0.1'))
    assert cfg.train_cfg.max_iters == 6
    for portion in ('0', '1.5', '0.01'):
        with pytest.raises(DMSError):
            train['apply_options'](cfg, parse('--portion', portion))


def test_a_portion_of_an_unknown_length(train, parse, workspace):
    cfg = Config.fromfile(str(workspace / 'search.py'))
    cfg.train_cfg = dict(by_epoch=True)
    with pytest.raises(DMSError, match='train_cfg'):
        train['apply_options'](cfg, parse('--portion', '0.5'))
