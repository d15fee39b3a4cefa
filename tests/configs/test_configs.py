"""Every config loads, builds and knows its target before any data is read."""

import os.path as osp
from glob import glob

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from dms_mmrazor.engine.hooks import find_resource_hook

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
CONFIGS = sorted(
    osp.relpath(path, ROOT)
    for path in glob(osp.join(ROOT, 'configs/*/*.py'))
    if '_base_' not in path
)
SEARCHES = [
    path for path in CONFIGS if 'dms' in path and 'dms-retrain' not in path
]
RETRAININGS = [path for path in CONFIGS if 'dms-retrain' in path]


def _load(path):
    cfg = Config.fromfile(osp.join(ROOT, path))
    init_default_scope(cfg.default_scope)
    return cfg


@pytest.mark.parametrize('path', SEARCHES)
def test_search(path):
    cfg = _load(path)
    algorithm = MODELS.build(
        dict(cfg.model, data_preprocessor=cfg.data_preprocessor)
    )
    targets = find_resource_hook(cfg).resolve(algorithm)
    assert 0 < targets['macs'] < algorithm.mutator.table.full['macs']
    assert not algorithm.mutator.report().unsearched
    assert cfg.optim_wrapper.constructor.endswith('DMSOptimWrapperConstructor')
    assert algorithm.structure_only == ('structure-only' in path)


@pytest.mark.parametrize('path', RETRAININGS)
def test_retraining_starts_from_a_search(path):
    cfg = _load(path)
    assert cfg.model.type == 'mmrazor.DMSSubModel'
    folder, name, *_ = cfg.model.structure.split('/')
    assert folder == 'work_dirs'
    family = osp.dirname(path)
    assert osp.join(family, f'{name}.py') in SEARCHES
