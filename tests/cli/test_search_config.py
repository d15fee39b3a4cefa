import pytest
from mmengine.config import Config

from dms_mmrazor.engine.hooks import ResourceHook
from dms_mmrazor.engine.search_config import (
    build_algorithm,
    find_resource_hook,
    override_target,
    parse_target_text,
)
from dms_mmrazor.errors import DMSError


@pytest.fixture
def cfg():
    hook = dict(type='mmrazor.ResourceHook', target=0.5, loss_weight=2.0)
    other = dict(type='EMAHook')
    return Config(dict(custom_hooks=[other, hook], default_scope='mmpretrain'))


def test_target_text():
    assert parse_target_text('0.5') == '0.5'
    both = parse_target_text('macs=1G, params=0.5')
    assert both == {'macs': '1G', 'params': '0.5'}


def test_override_keeps_the_rest(cfg):
    override_target(cfg, '1G', 4)
    hook = find_resource_hook(cfg)
    assert hook.wanted == {'macs': '1G'}
    assert hook.divisor == 4
    assert hook.weights == {'macs': 2.0}
    assert cfg.custom_hooks[0].type == 'EMAHook'


def test_hook_whose_type_is_a_class(cfg):
    cfg.custom_hooks[1].type = ResourceHook
    override_target(cfg, '1G')
    assert find_resource_hook(cfg).wanted == {'macs': '1G'}


def test_nothing_to_override(cfg):
    override_target(cfg)
    assert find_resource_hook(cfg).wanted == {'macs': 0.5}


def test_target_without_a_hook():
    cfg = Config(dict(model=dict(type='A')))
    override_target(cfg)
    with pytest.raises(DMSError, match='ResourceHook'):
        find_resource_hook(cfg)
    override_target(cfg, 'params=0.5')
    assert find_resource_hook(cfg).wanted == {'params': '0.5'}


def test_other_models_are_no_search(cfg, zoo):
    with pytest.raises(DMSError, match='no `model`'):
        build_algorithm(cfg)
    cfg.model = zoo.cifar_resnet(18)
    with pytest.raises(DMSError, match='ImageClassifier, not a DMSAlgorithm'):
        build_algorithm(cfg)
