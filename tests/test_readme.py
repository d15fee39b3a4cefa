"""What the README shows works as it stands there."""

import os.path as osp
import re
import sys
from pathlib import Path

import mmrazor
import pytest
from mmengine.config import Config
from mmengine.registry import (
    HOOKS,
    MODELS,
    init_default_scope,
)

from dms_mmrazor.engine.search_config import (
    build_algorithm,
    find_resource_hook,
)

sys.path.append(str(Path(__file__).parents[0]))
from diffs import apply_diff  # noqa: E402

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
PRUNING = osp.join(osp.dirname(mmrazor.__file__), '.mim/configs/pruning')
GROUP_FISHER = (
    'mmcls/group_fisher/resnet50/group_fisher_act_prune_resnet50_8xb32_in1k.py'
)
RETINANET = (
    'mmdet/group_fisher/retinanet/'
    'group_fisher_act_prune_retinanet_r50_fpn_1x_coco.py'
)


def _blocks(language, path='README.md'):
    with open(osp.join(ROOT, path), encoding='utf-8') as file:
        return re.findall(rf'```{language}\n(.*?)```', file.read(), re.S)


def _load(text, path, scope):
    path.write_text(text)
    cfg = Config.fromfile(str(path))
    init_default_scope(cfg.get('default_scope', scope))
    return cfg


def _changed(diff, original):
    with open(osp.join(PRUNING, original)) as file:
        return apply_diff(diff, file.read())


def test_group_fisher_diff_gives_a_search(tmp_path):
    diff = _blocks('diff', 'docs/recipes.md')[0]
    changed = _changed(diff, GROUP_FISHER)
    cfg = _load(changed, tmp_path / 'search.py', 'mmpretrain')
    assert [h.type for h in cfg.custom_hooks] == ['mmrazor.ResourceHook']
    model = MODELS.build(cfg.model)
    assert type(model).__name__ == 'DMSAlgorithm'
    assert len(model.mutator.units) == 37
    # Weights come from the same checkpoint as before.
    assert model.architecture.init_cfg['type'] == 'Pretrained'


@pytest.mark.parametrize(
    'index, original, macs',
    [
        (1, 'mmcls/l1-norm/l1-norm_resnet34_8xb32_in1k_a.py', 3.66e9 / 2),
        (2, 'mmcls/dmcp/dmcp_resnet50_supernet_32xb64.py', 2e9),
    ],
)
def test_diffs_of_other_methods_give_a_search(tmp_path, index, original, macs):
    diff = _blocks('diff', 'docs/recipes.md')[index]
    changed = _changed(diff, original)
    cfg = _load(changed, tmp_path / 'search.py', 'mmpretrain')
    cfg.model.mutator.verify = False  # faster; that of ResNet-50 is proven
    target = find_resource_hook(cfg).resolve(build_algorithm(cfg))['macs']
    assert target == pytest.approx(macs, rel=0.01)
    assert 'mmcls' not in cfg.pretty_text and 'model_wrapper_cfg' not in cfg
    assert cfg.optim_wrapper.optimizer.type == 'SGD'


def test_retinanets_diff_gives_a_search(tmp_path):
    (diff,) = _blocks('diff', 'configs/retinanet/README.md')
    changed = _changed(diff, RETINANET)
    cfg = _load(changed, tmp_path / 'search.py', 'mmdet')
    assert cfg.model.architecture.init_cfg.checkpoint.startswith('https://')
    assert cfg.optim_wrapper.optimizer.lr == 0.01 * 0.1
    algorithm = build_algorithm(cfg)
    targets = find_resource_hook(cfg).resolve(algorithm)
    assert targets['macs'] == 0.5 * algorithm.mutator.table.full['macs']
    # The backbone, the FPN and the heads that all levels share.
    assert not algorithm.mutator.report().unsearched
    assert len(algorithm.mutator.depth_units) == 4


def test_five_lines_give_a_search(tmp_path):
    (search,) = (t for t in _blocks('python') if '_base_' in t)
    cfg = _load(search, tmp_path / 'search.py', 'mmpretrain')
    model = MODELS.build(cfg.model)
    assert type(model).__name__ == 'DMSAlgorithm'
    assert cfg.custom_hooks[0].target == '1G'
    assert cfg.optim_wrapper.optimizer.type == 'SGD'


def test_hooks_and_mutators_of_the_pages():
    """Settings that pages show are settings that there are."""
    found = 0
    for page in ('recipes', 'not_searched'):
        for text in _blocks('python', f'docs/{page}.md'):
            if '_base_' in text or 'read_base' in text:
                continue
            if 'custom_hooks' not in text and 'mutator' not in text:
                continue
            names = {}
            exec(compile(text, page, 'exec'), names)
            for hook in names.get('custom_hooks', ()):
                HOOKS.build(hook)
                found += 1
            if 'mutator' in names:
                MODELS.build(names['mutator'])
                found += 1
    assert found == 5


@pytest.mark.parametrize('index', range(4))
def test_configs_of_the_recipes(tmp_path, index):
    texts = [t for t in _blocks('python', 'docs/recipes.md') if '_base_' in t]
    assert len(texts) == 4
    scope = 'mmyolo' if 'mmyolo::' in texts[index] else 'mmpretrain'
    pytest.importorskip(scope)
    cfg = _load(texts[index], tmp_path / 'recipe.py', scope)
    kind = cfg.model.type.split('.')[-1]
    assert kind == ('DMSSubModel' if index == 1 else 'DMSAlgorithm')
    assert cfg.model.architecture.backbone.type
