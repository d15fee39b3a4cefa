"""Configs of other papers' spaces, and MMRazor's turned into them."""

import os.path as osp
import re
import sys
from glob import glob
from pathlib import Path

import mmrazor
import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from dms_mmrazor.engine.search_config import (
    build_algorithm,
    find_resource_hook,
)

sys.path.append(str(Path(__file__).parents[1]))
from diffs import apply_diff  # noqa: E402

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
NAS = osp.join(osp.dirname(mmrazor.__file__), '.mim/configs/nas/mmcls')
ORIGINALS = (
    'autoformer/autoformer_supernet_32xb256_in1k.py',
    'autoformer/autoformer_search_8xb128_in1k.py',
    'onceforall/ofa_mobilenet_supernet_32xb64_in1k.py',
)
CONFIGS = sorted(glob(osp.join(ROOT, 'configs/spaces/*/*.py')))
SEARCHES = [p for p in CONFIGS if '_dms-' in p and '3ms' not in p]
SIDE = 64


@pytest.fixture(scope='module')
def turned(tmp_path_factory):
    """MMRazor's configs with the diffs of the documentation applied."""
    folder = tmp_path_factory.mktemp('nas')
    with open(osp.join(ROOT, 'docs', 'shared_supernets.md')) as file:
        diffs = re.findall(r'```diff\n(.*?)```', file.read(), re.S)
    assert len(diffs) == len(ORIGINALS)
    for diff, name in zip(diffs, ORIGINALS):
        with open(osp.join(NAS, name)) as file:
            text = apply_diff(diff, file.read())
        (folder / osp.basename(name)).write_text(text)
    return folder


def small(cfg):
    """The same space of a model that is built in a second."""
    architecture = cfg.model.architecture
    architecture.init_cfg = None
    if 'AutoFormer' in architecture.backbone.type:
        architecture.backbone.update(
            embed_dims=52, num_heads=10, head_dims=4, img_size=SIDE
        )
        architecture.head.in_channels = 52
    cfg.model.mutator.parse_cfg = dict(demo_input=(1, 3, SIDE, SIDE))
    cfg.model.mutator.verify = False
    return cfg


def load(path):
    cfg = Config.fromfile(str(path))
    init_default_scope(cfg.default_scope)
    return cfg


def test_mmrazors_autoformer_becomes_a_search(turned):
    cfg = small(load(turned / osp.basename(ORIGINALS[1])))
    assert cfg.custom_hooks[0].target == dict(params='55M')
    algorithm = build_algorithm(cfg)
    mutator = algorithm.mutator
    by_name = {unit.name: unit for unit in mutator.units}
    embedding = by_name['backbone.patch_embed.projection']
    assert (embedding.min_kept, embedding.step) == (44, 4)
    assert by_name['backbone.layers.0.attn.heads'].min_kept == 8
    mlp = by_name['backbone.layers.0.ffn.layers.0.0']
    assert (mlp.min_kept, mlp.step) == (156, 26)
    (stage,) = mutator.depth_units
    assert (stage.min_blocks, stage.num_blocks) == (14, 16)


@pytest.mark.parametrize('name', [ORIGINALS[0], ORIGINALS[2]])
def test_mmrazors_supernets_become_trainings(turned, name):
    cfg = small(load(turned / osp.basename(name)))
    model = MODELS.build(cfg.model)
    assert type(model).__name__ == 'DMSSharedSupernet'
    assert not cfg.get('model_wrapper_cfg')


@pytest.mark.parametrize('path', SEARCHES)
def test_searches_of_the_tables(path):
    cfg = load(path)
    cfg.model.architecture.init_cfg = None
    cfg.model.mutator.verify = False
    algorithm = build_algorithm(cfg)
    targets = find_resource_hook(cfg).resolve(algorithm)
    full = algorithm.mutator.table.full['macs']
    assert targets['macs'] < full
    if 'tiny' in path:
        assert full == pytest.approx(2.2e9, rel=0.03)
    if '6.1g' in path:
        assert full == pytest.approx(6.1e9, rel=0.03)


def test_all_configs_load():
    assert len(CONFIGS) == 11
    for path in CONFIGS:
        assert load(path).model
