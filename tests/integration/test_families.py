"""Each family of the configs: search, export and retrain on small images.

The configs are used as they are: bases, data pipelines, augmentations,
optimizers, schedules and hooks. Only the size is overridden: eight images of
64 px, one epoch of two iterations, half of the MACs as target, and the
smallest network of the family or, where that is too large as well, a narrower
one.
"""

import copy
import os.path as osp
import uuid
from glob import glob

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from dms_mmrazor.registry import MODELS
from dms_mmrazor.subnet import load_structure

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
SIZE = 64
TRANSFORMER = dict(
    img_size=SIZE,
    arch=dict(
        _delete_=True,
        embed_dims=48,
        num_layers=3,
        num_heads=3,
        feedforward_channels=96,
    ),
)
NARROW = dict(depth=50, stem_channels=16, base_channels=16)

# Folder → settings of a small backbone, and the channels that it ends with.
SMALL = {
    'resnet': (NARROW, 512),
    'resnext': (dict(NARROW, groups=4), 512),
    'seresnet': (NARROW, 512),
    'regnet': (dict(arch='regnetx_400mf'), 384),
    'mobilenet_v2': (dict(widen_factor=0.5), 1280),
    'mobilenet_v3': (dict(arch='small_050'), 288),
    'efficientnet': (dict(arch='b0'), 1280),
    'repvgg': (
        dict(
            arch=dict(
                _delete_=True,
                num_blocks=[2, 3, 3, 1],
                width_factor=[0.25, 0.25, 0.25, 0.25],
                group_layer_map=None,
                se_cfg=None,
            )
        ),
        128,
    ),
    'convnext': (
        dict(
            arch=dict(
                _delete_=True,
                depths=[2, 2, 3, 2],
                channels=[16, 32, 48, 64],
            )
        ),
        64,
    ),
    'swin_transformer': (
        dict(
            img_size=SIZE,
            window_size=2,
            arch=dict(
                _delete_=True,
                embed_dims=24,
                depths=[2, 2, 4, 2],
                num_heads=[1, 2, 4, 8],
            ),
        ),
        192,
    ),
    'vision_transformer': (TRANSFORMER, 48),
    'deit': (TRANSFORMER, 48),
}


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Eight images to train with and four to validate, in two classes."""
    root = tmp_path_factory.mktemp('images')
    rng = np.random.RandomState(0)
    for index in range(12):
        folder = root / ('train' if index < 8 else 'val') / str(index % 2)
        folder.mkdir(parents=True, exist_ok=True)
        image = rng.randint(0, 256, (72, 80, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f'{index}.jpg'), image)
    return str(root)


def config(family, kind):
    """The first config of a pipeline in a family's folder."""
    path = sorted(glob(osp.join(ROOT, 'configs', family, f'*dms-{kind}*')))[0]
    return Config.fromfile(path)


def is_enlarged(cfg):
    return str(cfg.get('type', '')).endswith('EnlargedModel')


def shrink_model(architecture, family):
    """Make the architecture of a config small."""
    if is_enlarged(architecture):
        architecture['demo_input'] = (1, 3, SIZE, SIZE)
        architecture = architecture.architecture
    backbone, channels = copy.deepcopy(SMALL[family])
    small = Config(dict(architecture=architecture))
    head = dict(in_channels=channels)
    small.merge_from_dict(
        dict(architecture=dict(backbone=backbone, head=head))
    )
    architecture.clear()
    architecture.update(small.architecture)


def shrink_data(cfg, images):
    for part, folder in (('train', 'train'), ('val', 'val')):
        loader = cfg[f'{part}_dataloader']
        for step in loader.dataset.pipeline:
            for key in ('scale', 'crop_size'):
                if key in step:
                    step[key] = SIZE
        loader.dataset = dict(
            type='CustomDataset',
            data_root=images,
            data_prefix=folder,
            pipeline=loader.dataset.pipeline,
        )
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)


def train(cfg, images, work_dir):
    """One epoch of two iterations by a real runner."""
    shrink_data(cfg, images)
    cfg.train_cfg.max_epochs = 1
    if isinstance(cfg.param_scheduler, list):
        cfg.param_scheduler = cfg.param_scheduler[:1]  # the others are later
    cfg.log_level = 'WARNING'
    cfg.randomness = dict(seed=0)
    cfg.experiment_name = uuid.uuid4().hex
    cfg.work_dir = str(work_dir)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    return runner


def small_search(family, kind='pretrain-free'):
    cfg = config(family, kind)
    shrink_model(cfg.model.architecture, family)
    cfg.model.mutator.parse_cfg = dict(
        type='DMSChannelAnalyzer', demo_input=(1, 3, SIZE, SIZE)
    )
    cfg.custom_hooks[-1].target = 0.5
    return cfg


def shapes(state):
    return {name: tuple(value.shape) for name, value in state.items()}


@pytest.mark.parametrize('family', sorted(SMALL))
def test_search_export_retrain(family, images, tmp_path):
    cfg = small_search(family)
    architecture = cfg.model.architecture.to_dict()
    runner = train(cfg, images, tmp_path / 'search')
    mutator = runner.model.mutator
    assert mutator.topk.num_updates == 2
    assert not mutator.report().unsearched
    subnet = tmp_path / 'search' / 'subnet'
    structure = load_structure(str(subnet / 'subnet.yaml'))
    macs = structure.resources['macs']
    assert macs['subnet'] <= macs['target'] < macs['supernet']

    cfg = config(family, 'retrain')
    shrink_model(cfg.model.architecture, family)
    cfg.model.structure = str(subnet / 'subnet.yaml')
    runner = train(cfg, images, tmp_path / 'retrain')
    saved = torch.load(str(subnet / 'subnet.pth'), map_location='cpu')
    trained = runner.model.state_dict()
    assert shapes(trained) == shapes(saved['state_dict'])
    init_default_scope('mmpretrain')
    plain = MODELS.build(architecture)
    assert type(runner.model) is type(plain)
    assert set(trained) <= set(plain.state_dict())
    assert all(
        torch.isfinite(value).all()
        for value in trained.values()
        if value.is_floating_point()
    )


def test_a_trained_supernet_of_an_enlarged_model(images, tmp_path):
    """Train it, then start a pretrained search from its checkpoint."""
    folder = osp.join(ROOT, 'configs', 'mobilenet_v2')
    name = 'mobilenet-v2-w1.5-d2_8xb32_in1k'
    cfg = Config.fromfile(osp.join(folder, f'{name}.py'))
    shrink_model(cfg.model, 'mobilenet_v2')
    train(cfg, images, tmp_path / 'supernet')
    checkpoint = str(tmp_path / 'supernet' / 'epoch_1.pth')
    cfg = small_search('mobilenet_v2', 'pretrained')
    init_cfg = cfg.model.architecture.init_cfg
    assert name in init_cfg.checkpoint
    init_cfg.checkpoint = checkpoint
    init_default_scope('mmpretrain')
    algorithm = MODELS.build(cfg.model)
    algorithm.init_weights()
    weights = torch.load(checkpoint, map_location='cpu')['state_dict']
    state = algorithm.architecture.state_dict()
    assert shapes(weights).items() <= shapes(state).items()
    for key, value in weights.items():
        assert torch.equal(state[key], value), key
