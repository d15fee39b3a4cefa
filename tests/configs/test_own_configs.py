"""The recipe of the README on configs that are not in this repository."""

import re

import mmengine.logging
import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS, init_default_scope

from dms_mmrazor.engine.config_keywords import check_keywords
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.subnet import save_structure

# Types without prefix, as in any config of mmpretrain.
PLAIN = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=8,
                  stem_channels=8, num_stages=4),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=4, in_channels=64))
data_preprocessor = dict(num_classes=4)
"""
TYPES = """
from mmpretrain.models import (
    GlobalAveragePooling, ImageClassifier, LinearClsHead, ResNet_CIFAR)
"""
RECIPE = """
algorithm = _base_.algorithm
algorithm.mutator.parse_cfg = dict(demo_input=(1, 3, 32, 32))
algorithm.mutator.verify = False  # faster
model = dict(_delete_=True, architecture=_base_.model, **algorithm)
custom_hooks = [dict(_base_.resource_hook, target=0.6)]
"""
FLAT = f"""{PLAIN}
custom_imports = dict(imports=['dms_mmrazor.plugin'])
model = dict(
    type='mmrazor.DMSAlgorithm', architecture=model,
    mutator=dict(parse_cfg=dict(demo_input=(1, 3, 32, 32))))
custom_hooks = [dict(type='mmrazor.ResourceHook', target=0.6)]
"""
LAZY = """
from mmengine.config import read_base
with read_base():
    from .plain import *
    from dms_mmrazor.configs.{pipeline} import *
algorithm.mutator.parse_cfg = dict(demo_input=(1, 3, 32, 32))
algorithm.mutator.verify = False  # faster
model = dict(architecture=model, **algorithm)
resource_hook.update(target=0.6)
custom_hooks = [resource_hook]
"""


def _base(plain, pipeline='pretrain_free'):
    pipeline = f'dms_mmrazor::_base_/pipelines/{pipeline}.py'
    return f'_base_ = [{plain!r}, {pipeline!r}]\n{RECIPE}'


def _lazy_plain():
    classes = re.sub(r"type='(\w+)'", r'type=\1', PLAIN)
    return TYPES + classes


CONFIGS = {
    'by path': (PLAIN, _base('./plain.py')),
    'by path, structure only': (PLAIN, _base('./plain.py', 'structure_only')),
    'by package': (
        PLAIN,
        _base('mmpretrain::resnet/resnet18_8xb16_cifar10.py'),
    ),
    'flat': (PLAIN, FLAT),
    'lazy': (_lazy_plain(), LAZY.format(pipeline='pretrain_free')),
    'lazy, pretrained': (_lazy_plain(), LAZY.format(pipeline='pretrained')),
    'lazy, structure only': (
        _lazy_plain(),
        LAZY.format(pipeline='structure_only'),
    ),
}


@pytest.fixture
def warnings(monkeypatch):
    """What mmengine says of scopes, which goes past Python's warnings."""
    found = []

    def note(message, *args, **kwargs):
        found.append(str(message))

    monkeypatch.setattr(mmengine.logging, 'print_log', note)
    return found


def _read(folder, plain, search, dumped=False):
    (folder / 'plain.py').write_text(plain)
    (folder / 'search.py').write_text(search)
    cfg = Config.fromfile(str(folder / 'search.py'))
    if dumped:
        cfg.dump(str(folder / 'dumped.py'))
        cfg = Config.fromfile(str(folder / 'dumped.py'))
    check_keywords(cfg)
    return cfg


@pytest.mark.parametrize('dumped', [False, True], ids=['read', 'dumped'])
@pytest.mark.parametrize('name', CONFIGS)
def test_recipe(name, dumped, tmp_path, warnings):
    cfg = _read(tmp_path, *CONFIGS[name], dumped)
    init_default_scope(cfg.default_scope)
    # As a runner does.
    model = dict(cfg.model, data_preprocessor=cfg.data_preprocessor)
    model = MODELS.build(model)
    assert isinstance(model, DMSAlgorithm)
    assert type(model.architecture).__name__ == 'ImageClassifier'
    assert model.structure_only == ('structure only' in name)
    preprocessor = model.architecture.data_preprocessor
    assert type(preprocessor).__name__ == 'ClsDataPreprocessor'
    (hook,) = cfg.custom_hooks
    assert HOOKS.build(hook).wanted == {'macs': 0.6}
    assert not [line for line in warnings if 'scope' in line]


RETRAINING = """
_base_ = {base!r}
model = dict(_delete_=True, type='mmrazor.DMSSubModel',
             architecture=_base_.model, structure={structure!r})
"""


def test_retraining_of_an_own_config(tmp_path):
    cfg = _read(tmp_path, *CONFIGS['by path'])
    init_default_scope(cfg.default_scope)
    structure = MODELS.build(cfg.model).mutator.structure()
    path = str(tmp_path / 'subnet.yaml')
    save_structure(structure, path)
    text = RETRAINING.format(base='./plain.py', structure=path)
    cfg = _read(tmp_path, PLAIN, text)
    assert type(MODELS.build(cfg.model)).__name__ == 'ImageClassifier'


def test_advice_for_an_architecture_of_another_scope(tmp_path):
    """A scope of the model around it is that of the architecture, too."""
    algorithm = "type='mmrazor.DMSAlgorithm'"
    text = FLAT.replace(algorithm, "_scope_='mmrazor', type='DMSAlgorithm'")
    cfg = _read(tmp_path, PLAIN, text)
    init_default_scope(cfg.default_scope)
    with pytest.raises(DMSError) as error:
        MODELS.build(cfg.model)
    assert 'model.architecture.type' in str(error.value)
    assert "_scope_='mmpretrain'" in str(error.value)
    cfg.model.architecture._scope_ = 'mmpretrain'
    assert isinstance(MODELS.build(cfg.model), DMSAlgorithm)


@pytest.mark.parametrize('kind', ['ImageClasifier', None])
def test_unknown_architectures(kind):
    init_default_scope('mmpretrain')
    cfg = dict(architecture=dict(type=kind), type='mmrazor.DMSAlgorithm')
    with pytest.raises(DMSError, match='model.architecture'):
        MODELS.build(cfg)
