"""Searches are warned once, in time, of steps that are too large."""

import logging
import re

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from dms_mmrazor.engine.step_checks import CHECKED

HOOK = 'dms_mmrazor.engine.hooks.resource_hook'
HALF = 8
"""Iteration, counted from 1, after which half of the decay is over."""


class StoppedError(Exception):
    """The training was interrupted."""


class Stop(Hook):
    """Interrupts a training after an iteration and its checkpoint."""

    priority = 'LOWEST'

    def __init__(self, iteration):
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, **kwargs):
        if runner.iter + 1 == self.iteration:
            raise StoppedError


class Listener(logging.Handler):
    """Warnings of steps, each with its iteration, counted from 1."""

    def __init__(self, runner):
        super().__init__(logging.WARNING)
        self.runner = runner
        self.heard = []

    def emit(self, record):
        line = record.getMessage()
        if line.startswith('One step of the resource loss'):
            self.heard.append((self.runner.iter + 1, line))


@pytest.fixture
def train(zoo, search_config, tmp_path):
    """Searches in one folder, of which each but the first resumes."""

    def run(lr, stop=None, model=None, hook=None, **mutator):
        hook = dict(target=0.7, decay=2 * HALF / 20, **(hook or {}))
        model = model or zoo.cifar_resnet(18)
        cfg = search_config(model, tmp_path / 'run', 20, hook=hook)
        cfg['model']['mutator'].update(mutator)
        structure = dict(lr=lr)
        cfg['optim_wrapper']['paramwise_cfg'] = dict(structure=structure)
        cfg['default_hooks']['checkpoint'] = dict(
            type='CheckpointHook', by_epoch=False, interval=6
        )
        cfg['resume'] = True
        runner = Runner.from_cfg(Config(cfg))
        listener = Listener(runner)
        runner.logger.addHandler(listener)
        runner.register_hook(Stop(stop))
        try:
            runner.train()
        except StoppedError:
            pass
        return runner, listener.heard

    return run


def test_a_coarse_depth_is_told_after_half_of_the_decay(train, zoo):
    model = zoo.cifar_resnet()
    _, heard = train(0.3, model=model, channel_unit_cfg=None, stop=10)
    ((iteration, line),) = heard
    assert iteration == HALF
    assert re.search(r'the macs by [\d.]+% now \(depth of backbone.', line)
    assert 'widths' not in line
    assert '`optim_wrapper.paramwise_cfg.structure.lr`' in line


def test_nothing_is_told_twice(train):
    """The widths are too coarse when the depth is held, too."""
    _, ((iteration, line),) = train(0.3)
    assert iteration == HALF and 'widths' in line


def test_a_soft_landing_needs_no_warning(train):
    assert train(0.3, 18, hook=dict(soft_landing=True))[1] == []


def test_small_steps_need_no_warning(train):
    runner, heard = train(1e-3)
    assert heard == []
    assert runner.message_hub.get_info(CHECKED) == {'macs': (1e-3, False)}


def test_a_resumed_search_does_not_repeat_it(train):
    assert len(train(0.3, stop=12)[1]) == 1
    runner, heard = train(0.3)
    assert runner.iter == 20 and heard == []


def test_a_search_resumed_from_before_is_told_again(train):
    """The user reads the log of what is kept."""
    assert [when for when, _ in train(0.3, stop=10)[1]] == [HALF]
    assert [when for when, _ in train(0.3)[1]] == [HALF]


def test_another_learning_rate_is_checked_anew(train):
    assert len(train(0.3, stop=12)[1]) == 1
    assert [when for when, _ in train(0.25)[1]] == [13]


def test_a_search_of_an_older_version_is_told(train, monkeypatch):
    """Its checkpoint does not say that anything was checked."""
    with monkeypatch.context() as patch:
        patch.setattr(f'{HOOK}.check_steps', lambda *args: None)
        assert train(0.3, stop=12)[1] == []
    assert [when for when, _ in train(0.3)[1]] == [13]


def test_steps_that_become_coarse_are_told_while_refining(train, monkeypatch):
    monkeypatch.setattr(f'{HOOK}.check_steps', lambda *args: None)
    assert [when for when, _ in train(0.3)[1]] == [2 * HALF + 1]
