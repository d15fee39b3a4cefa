"""What a config says is used, or refused with what to write instead."""

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS

from dms_mmrazor.engine.config_keywords import (
    check_keywords,
    refuse_unsupported,
)
from dms_mmrazor.engine.hooks import ResourceHook
from dms_mmrazor.engine.search_config import find_resource_hook
from dms_mmrazor.errors import DMSError

HOOK = dict(type='mmrazor.ResourceHook', target=0.5)


def search(zoo, mutator=(), **model):
    parse_cfg = dict(demo_input=(1, 3, 32, 32))
    settings = dict(parse_cfg=parse_cfg, verify=False)
    settings.update(mutator)
    return dict(
        type='mmrazor.DMSAlgorithm',
        architecture=zoo.cifar_resnet(18),
        mutator=settings,
        **model,
    )


@pytest.mark.parametrize(
    'wrong, right, words',
    [
        (
            dict(structure_only='False'),
            dict(structure_only=False),
            ['structure_only'],
        ),
        (
            dict(module_inplace='no'),
            dict(module_inplace=True),
            ['module_inplace'],
        ),
        (dict(mutator=dict(verify='no')), dict(), ['mutator.verify', "'no'"]),
        (
            dict(mutator=dict(parse_cfg=dict(demo_input=32))),
            dict(mutator=dict(parse_cfg=dict(demo_input=(1, 3, 32, 32)))),
            ['parse_cfg.demo_input', 'got 32', '(1, 3, 32, 32)'],
        ),
        (
            dict(mutator=dict(type='mmrazor.ChannelMutator')),
            dict(mutator=dict(type='mmrazor.DMSMutator')),
            ['model.mutator.type', 'ChannelMutator', 'DMSMutator'],
        ),
        (
            dict(
                mutator=dict(
                    channel_unit_cfg=dict(
                        units={'backbone.layer1*': dict(min_ratio=0.5)}
                    )
                )
            ),
            dict(
                mutator=dict(
                    channel_unit_cfg=dict(
                        units={
                            'backbone.layer1*': dict(
                                init_args=dict(min_ratio=0.5)
                            )
                        }
                    )
                )
            ),
            [
                "channel_unit_cfg.units['backbone.layer1*']",
                'dict(init_args=dict(min_ratio=0.5))',
            ],
        ),
    ],
)
def test_model(zoo, wrong, right, words):
    with pytest.raises(DMSError) as error:
        MODELS.build(search(zoo, **wrong))
    assert all(word in str(error.value) for word in words)
    MODELS.build(search(zoo, **right))


@pytest.mark.parametrize(
    'wrong, right, words',
    [
        (dict(), dict(target=0.5), ['`target`', 'target=0.5']),
        (
            dict(target=0.5, hold_depth='no'),
            dict(target=0.5, hold_depth=False),
            ['hold_depth', "'no'"],
        ),
        (
            dict(target=0.5, soft_landing=True),
            dict(target=0.5),
            ['soft_landing', 'remove it', "structure_step=dict(rule='price')"],
        ),
        (
            dict(target=0.5, intervall=4),
            dict(target=0.5, interval=4),
            ["'intervall'", 'interval, '],
        ),
    ],
)
def test_hook(wrong, right, words):
    """Built by a runner, and looked for by a tool."""
    wrong = dict(wrong, type='mmrazor.ResourceHook')
    for build in (
        HOOKS.build,
        lambda cfg: find_resource_hook(Config(dict(custom_hooks=[cfg]))),
    ):
        with pytest.raises(DMSError) as error:
            build(wrong)
        assert all(word in str(error.value) for word in words)
        assert isinstance(build(dict(HOOK, **right)), ResourceHook)


class Runner:
    """As much of one as is looked at before a run."""

    distributed = False

    def __init__(self, **cfg):
        self.cfg = Config(cfg)


@pytest.mark.parametrize('script', [False, True])
def test_two_hooks(script):
    def check(hooks):
        runner = Runner(custom_hooks=hooks)
        refuse_unsupported(runner) if script else check_keywords(runner.cfg)

    with pytest.raises(DMSError, match='custom_hooks.*2 of ResourceHook'):
        check([HOOK, dict(HOOK, target=0.3)])
    both = dict(HOOK, target=dict(macs=0.5, params='10M'))
    check([both])
    HOOKS.build(both)


def test_structure_group_of_a_config_from_before():
    """mmengine's constructor would not say a word."""
    wrapper = dict(paramwise_cfg=dict(structure=dict(lr=0.03)))
    with pytest.raises(DMSError) as error:
        check_keywords(Config(dict(optim_wrapper=wrapper)))
    assert 'paramwise_cfg.structure' in str(error.value)
    assert "structure_step=dict(rule='plain', lr=0.03)" in str(error.value)
    check_keywords(Config(dict(optim_wrapper=dict(paramwise_cfg=None))))


def test_no_hook_by_a_misspelled_key():
    cfg = Config(dict(custom_hook=[HOOK]))
    with pytest.raises(DMSError, match='`custom_hook` has one.*nothing reads'):
        find_resource_hook(cfg)
    assert find_resource_hook(Config(dict(custom_hooks=[HOOK])))


def test_a_runner_without_a_hook_stops_at_once(zoo):
    model = MODELS.build(search(zoo))
    with pytest.raises(DMSError, match='custom_hooks.*ResourceHook'):
        model.train_step({}, None)
