"""Every config loads, builds and knows its target before any data is read."""

import copy
import os.path as osp
import random
import re
from functools import lru_cache
from glob import glob

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from dms_mmrazor.engine.search_config import find_resource_hook

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
# Language models are local files: tests/plugins/transformers has their test.
# Those of mmsegmentation and mmpose are in tests/integration.
ELSEWHERE = (
    '/llama/',
    '/segformer/',
    '/deeplabv3plus/',
    '/pspnet/',
    '/unet/',
    '/topdown_heatmap/',
)
CONFIGS = sorted(
    osp.relpath(path, ROOT)
    for path in glob(osp.join(ROOT, 'configs/*/*.py'))
    if '_base_' not in path and not any(e in path for e in ELSEWHERE)
)
RETRAININGS = [path for path in CONFIGS if 'dms-retrain' in path]
SEARCHES = [
    path for path in CONFIGS if 'dms' in path and path not in RETRAININGS
]
IMAGENET = [path for path in CONFIGS if '_in1k' in path]
PLAIN = [path for path in IMAGENET if 'dms' not in path]
FAMILIES = sorted({osp.dirname(path) for path in IMAGENET})
FROM_TRAINED = [
    path for path in IMAGENET if re.search('dms-(pretrained|structure)', path)
]


@lru_cache(maxsize=None)
def _read(path):
    return Config.fromfile(osp.join(ROOT, path))


def load(path):
    cfg = copy.deepcopy(_read(path))
    init_default_scope(cfg.default_scope)
    return cfg


def name_of(path):
    return osp.splitext(osp.basename(path))[0]


def preprocessor_of(cfg):
    """What a runner adds to the model."""
    preprocessor = cfg.get('data_preprocessor')
    return dict(data_preprocessor=preprocessor) if preprocessor else {}


def input_size(cfg):
    parse_cfg = cfg.model.mutator.get('parse_cfg', {})
    return parse_cfg.get('demo_input', (1, 3, 224, 224))[2:]


def traced_size(cfg):
    """Large images are traced at a quarter; their targets are ratios."""
    height, width = input_size(cfg)
    if height * width <= 640 * 640:
        return height, width
    return tuple(round(side / 4 / 32) * 32 for side in (height, width))


@pytest.fixture(scope='module')
def search():
    """The search of a config, built once per supernet."""
    built = {}

    def build(cfg):
        model = dict(cfg.model, structure_only=False)
        model['architecture'] = dict(model['architecture'], init_cfg=None)
        model['mutator'] = dict(model['mutator'], verify=False)
        model['mutator']['parse_cfg'] = dict(
            type='DMSChannelAnalyzer', demo_input=(1, 3, *traced_size(cfg))
        )
        key = repr(model)
        if key not in built:
            built[key] = MODELS.build({**preprocessor_of(cfg), **model})
        return built[key]

    return build


@pytest.mark.parametrize('path', SEARCHES)
def test_search(path, search):
    cfg = load(path)
    algorithm = search(cfg)
    hook = find_resource_hook(cfg)
    if tuple(input_size(cfg)) != tuple(traced_size(cfg)):
        assert all(0 < target <= 1 for target in hook.wanted.values())
    targets = hook.resolve(algorithm)
    assert 0 < targets['macs'] < algorithm.mutator.table.full['macs']
    assert not algorithm.mutator.report().unsearched
    searched = 'width' not in name_of(path).split('-')
    assert bool(algorithm.mutator.depth_units) == searched
    structure_only = cfg.model.get('structure_only', False)
    assert structure_only == ('structure-only' in path)


@pytest.mark.parametrize('path', [p for p in IMAGENET if p in SEARCHES])
def test_search_is_what_its_name_says(path):
    cfg = load(path)
    macs, gpus, size, number, unit = re.search(
        r'-([\d.]+)g_(\d+)xb(\d+)-(\d+)(e|i)_in1k', path
    ).groups()
    assert find_resource_hook(cfg).wanted == {'macs': f'{macs}G'}
    assert cfg.train_dataloader.batch_size == int(size)
    key = 'max_epochs' if unit == 'e' else 'max_iters'
    assert cfg.train_cfg[key] == int(number)
    assert ('depth_unit_cfg' in cfg.model.mutator) == (
        '-width-' in path or 'mobilenet-v2' in path
    )
    pixels = re.search(r'-(\d+)px', path)
    side = int(pixels.group(1)) if pixels else 224
    assert tuple(input_size(cfg)) == (side, side)
    crops = [
        step.get('scale', step.get('crop_size'))
        for step in cfg.train_pipeline + cfg.test_pipeline
        if 'Crop' in step.type
    ]
    assert crops == [side, side]


@pytest.mark.parametrize('path', FROM_TRAINED)
def test_trained_supernet_is_published_or_trained_here(path):
    cfg = load(path)
    init_cfg = cfg.model.architecture.init_cfg
    assert init_cfg.type == 'Pretrained'
    if init_cfg.checkpoint.startswith('https://download.openmmlab.com/'):
        return
    folder, name, file = init_cfg.checkpoint.split('/')
    supernet = osp.join(osp.dirname(path), f'{name}.py')
    assert folder == 'work_dirs' and supernet in PLAIN
    trained = load(supernet)
    assert file == f'epoch_{trained.train_cfg.max_epochs}.pth'
    wanted, given = (
        dict(c, init_cfg=None) for c in (trained.model, cfg.model.architecture)
    )
    assert wanted == given


@pytest.mark.parametrize('path', RETRAININGS)
def test_retraining_fits_its_search(path, search):
    cfg = load(path)
    assert cfg.model.type == 'mmrazor.DMSSubModel'
    folder, name, *_ = cfg.model.structure.split('/')
    source = osp.join(osp.dirname(path), f'{name}.py')
    assert folder == 'work_dirs' and source in SEARCHES
    algorithm = search(load(source))
    random.seed(0)
    choices = algorithm.mutator.sample_choices()
    structure = algorithm.mutator.structure(choices)
    init_default_scope(cfg.default_scope)
    # Raises if the architecture is another one than that of the search.
    model = MODELS.build(
        {**preprocessor_of(cfg), **cfg.model, 'structure': structure}
    )
    params = sum(p.numel() for p in model.parameters())
    assert params < 0.9 * algorithm.mutator.table.full['params']


@pytest.mark.parametrize('path', PLAIN)
def test_plain_training(path):
    cfg = load(path)
    model = MODELS.build({**preprocessor_of(cfg), **cfg.model})
    assert type(model).__name__ == 'ImageClassifier'


@pytest.mark.parametrize('family', FAMILIES)
def test_a_family_has_all_pipelines(family):
    names = [name_of(path) for path in CONFIGS if path.startswith(family)]
    kinds = ('pretrain-free', 'pretrained', 'structure-only', 'retrain')
    for kind in kinds:
        assert any(f'dms-{kind}' in name for name in names), kind
    readme = osp.join(ROOT, family, 'README.md')
    with open(readme, encoding='utf-8') as file:
        text = file.read()
    listed = set(re.findall(r'`([\w.-]+)\.py`', text))
    assert listed == set(names)
