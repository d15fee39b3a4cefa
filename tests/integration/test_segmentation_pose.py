"""mmsegmentation's and mmpose's models: search, export, retraining.

The configs are used as they are, with small widths and images.
"""

import os.path as osp

import pytest
import torch
from mmengine.config import Config
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope

from dms_mmrazor.engine.search_config import find_resource_hook
from dms_mmrazor.graph.demo import demo_samples
from dms_mmrazor.subnet import prune
from dms_mmrazor.subnet.structure import save_structure
from dms_mmrazor.supernet.difference import max_difference
from dms_mmrazor.supernet.plain import plain_copy

CONFIGS = osp.join(osp.dirname(__file__), '../../configs')
SIZE = (2, 3, 64, 64)
SEGFORMER = (
    'segformer/segformer_mit-b0_dms-{}_8xb2-160k_ade20k-512x512.py',
    {
        'backbone.embed_dims': 8,
        'backbone.num_layers': [1, 1, 2, 1],
        'backbone.num_heads': [1, 2, 2, 2],
        'decode_head.in_channels': [8, 16, 16, 16],
        'decode_head.channels': 16,
    },
)
DEEPLAB = (
    'deeplabv3plus/deeplabv3plus_r50-d8_dms-{}_4xb4-80k_ade20k-512x512.py',
    {
        'backbone.base_channels': 8,
        'backbone.stem_channels': 8,
        'decode_head.in_channels': 256,
        'decode_head.channels': 16,
        'decode_head.c1_in_channels': 32,
        'decode_head.c1_channels': 8,
        'auxiliary_head.in_channels': 128,
        'auxiliary_head.channels': 16,
    },
)
PSPNET = (
    'pspnet/pspnet_r50-d8_dms-{}_4xb4-80k_ade20k-512x512.py',
    {
        'backbone.base_channels': 8,
        'backbone.stem_channels': 8,
        'decode_head.in_channels': 256,
        'decode_head.channels': 16,
        'auxiliary_head.in_channels': 128,
        'auxiliary_head.channels': 16,
    },
)
UNET = (
    'unet/unet-s5-d16_fcn_dms-{}_4xb4-160k_cityscapes-512x1024.py',
    {
        'backbone.base_channels': 8,
        'decode_head.in_channels': 8,
        'decode_head.channels': 8,
        'auxiliary_head.in_channels': 16,
        'auxiliary_head.channels': 8,
    },
)
POSE = (
    'topdown_heatmap/td-hm_res50_dms-{}_8xb64-210e_coco-256x192.py',
    {
        'backbone.base_channels': 8,
        'backbone.stem_channels': 8,
        'head.in_channels': 256,
        'head.deconv_out_channels': (16, 16, 16),
    },
)
CASES = {
    'segformer': SEGFORMER,
    'deeplabv3plus': DEEPLAB,
    'pspnet': PSPNET,
    'unet': UNET,
    'pose': POSE,
}


def small(config, options):
    """A config with a small architecture and nothing to download."""
    cfg = Config.fromfile(osp.join(CONFIGS, config))
    init_default_scope(cfg.default_scope)
    cfg.merge_from_dict(
        {f'model.architecture.{k}': v for k, v in options.items()}
    )
    cfg.model.architecture.init_cfg = None
    return cfg


def train(model, steps):
    """Steps of a training on made-up images; the losses of the last."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.train()
    for _ in range(steps):
        (samples, *_) = demo_samples(_architecture(model), SIZE)
        losses = model(torch.rand(SIZE), samples, mode='loss')
        optimizer.zero_grad()
        sum(v for k, v in losses.items() if 'loss' in k).backward()
        optimizer.step()
    return losses


def _architecture(model):
    return getattr(model, 'architecture', model)


@pytest.mark.parametrize('name', list(CASES))
def test_search_export_and_retraining(name, tmp_path):
    pytest.importorskip('mmpose' if name == 'pose' else 'mmseg')
    config, options = CASES[name]
    cfg = small(config.format('search'), options)
    hook = find_resource_hook(cfg)
    assert hook.wanted == {'macs': 0.5}
    height = 256 if name == 'pose' else 512
    assert cfg.model.mutator.parse_cfg.demo_input[:3] == (1, 3, height)
    cfg.model.mutator.parse_cfg.demo_input = SIZE
    torch.manual_seed(0)
    algorithm = MODELS.build(cfg.model)
    mutator = algorithm.mutator
    held = {layer.name for layer in mutator.report().unsearched}
    assert held <= {'auxiliary_head.conv_seg'}  # costs nothing in use
    assert mutator.depth_units or name == 'unet'  # which has no blocks
    # As the runner and the hook do in one process.
    revert_sync_batchnorm(algorithm)
    mutator.restore_masks(algorithm.architecture)
    losses = train(algorithm, 2)
    auxiliary = 'auxiliary_head' in cfg.model.architecture
    assert ('aux.loss_ce' in losses) == auxiliary
    mutator.set_choices(mutator.sample_choices())
    path = str(tmp_path / 'subnet.yaml')
    structure = mutator.structure()
    save_structure(structure, path)

    retraining = small(config.format('retrain'), options)
    assert retraining.model.structure.endswith('subnet/subnet.yaml')
    retraining.model.update(structure=path, init_cfg=None)
    subnet = revert_sync_batchnorm(MODELS.build(retraining.model))
    found = prune(plain_copy(algorithm.architecture), structure)
    subnet.load_state_dict(found.state_dict())
    images = torch.rand(SIZE)
    difference = max_difference(algorithm.architecture, subnet, images)
    assert difference <= 1e-5
    losses = train(subnet, 2)
    assert ('aux.loss_ce' in losses) == auxiliary
    assert all(bool(v.isfinite().all()) for v in losses.values())
