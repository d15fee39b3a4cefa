"""What the README shows works as it stands there."""

import os.path as osp
import re

import mmrazor
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
GROUP_FISHER = (
    '.mim/configs/pruning/mmcls/group_fisher/resnet50/'
    'group_fisher_act_prune_resnet50_8xb32_in1k.py'
)


def _blocks(language):
    with open(osp.join(ROOT, 'README.md'), encoding='utf-8') as file:
        return re.findall(rf'```{language}\n(.*?)```', file.read(), re.S)


def _apply(diff, text):
    """Apply a diff without line numbers: context must match in order."""
    lines, result, position = text.splitlines(), [], 0
    for entry in diff.splitlines():
        sign, content = entry[:1], entry[1:]
        if sign == '+':
            result.append(content)
            continue
        while lines[position] != content:
            result.append(lines[position])
            position += 1
        position += 1
        if sign != '-':
            result.append(content)
    return '\n'.join(result + lines[position:]) + '\n'


def _load(text, path, scope):
    path.write_text(text)
    cfg = Config.fromfile(str(path))
    init_default_scope(cfg.get('default_scope', scope))
    return cfg


def test_group_fisher_diff_gives_a_search(tmp_path):
    (diff,) = _blocks('diff')
    original = osp.join(osp.dirname(mmrazor.__file__), GROUP_FISHER)
    with open(original) as file:
        changed = _apply(diff, file.read())
    cfg = _load(changed, tmp_path / 'search.py', 'mmpretrain')
    assert cfg.optim_wrapper.constructor == (
        'mmrazor.DMSOptimWrapperConstructor'
    )
    assert [h.type for h in cfg.custom_hooks] == ['mmrazor.ResourceHook']
    model = MODELS.build(cfg.model)
    assert type(model).__name__ == 'DMSAlgorithm'
    assert len(model.mutator.units) == 37
    # Weights come from the same checkpoint as before.
    assert model.architecture.init_cfg['type'] == 'Pretrained'


def test_three_lines_give_a_search(tmp_path):
    search = _blocks('python')[0]
    cfg = _load(search, tmp_path / 'search.py', 'mmpretrain')
    model = MODELS.build(cfg.model)
    assert type(model).__name__ == 'DMSAlgorithm'
    assert cfg.custom_hooks[0].target == '1G'
    assert cfg.optim_wrapper.optimizer.type == 'SGD'


def test_core_example_runs():
    example = _blocks('python')[-1]
    names = {}
    exec(compile(example, 'README.md', 'exec'), names)
    assert int((names['mask'] >= 0.5).sum()) == 32


def teardown_module():
    DefaultScope.get_instance('mmengine', scope_name='mmengine')
