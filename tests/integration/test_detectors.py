"""Each detector's own configs: search, export, retraining, evaluation.

The configs are used as they are, with their pipelines, schedules, hooks and
paths, on tiny images, widths and trainings.
"""

import os.path as osp

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

SIZE = 64
LR = 0.05
SEARCHES = {
    'YOLOv5': 'yolov5/yolov5_s_dms-search-4g_syncbn_fast_8xb16-30e_coco.py',
    'YOLOX': 'yolox/yolox_s_dms-search-6.5g_fast_8xb8-30e_coco.py',
    'RTMDet': 'rtmdet/rtmdet_s_dms-search-7g_syncbn_fast_8xb32-30e_coco.py',
    'RetinaNet': 'retinanet/retinanet_r50_fpn_dms-search_1x_coco.py',
    'Faster R-CNN': 'faster_rcnn/faster-rcnn_r50_fpn_dms-search_1x_coco.py',
}
RETRAININGS = {
    'YOLOv5': 'yolov5/yolov5_s_dms-retrain_syncbn_fast_8xb16-300e_coco.py',
    'YOLOX': 'yolox/yolox_s_dms-retrain_fast_8xb8-300e_coco.py',
    'RTMDet': 'rtmdet/rtmdet_s_dms-retrain_syncbn_fast_8xb32-300e_coco.py',
    'RetinaNet': 'retinanet/retinanet_r50_fpn_dms-retrain_1x_coco.py',
    'Faster R-CNN': 'faster_rcnn/faster-rcnn_r50_fpn_dms-retrain_1x_coco.py',
}
STRUCTURE_ONLY = (
    'yolov8/yolov8_s_dms-structure-only-10.7g_syncbn_fast_8xb16-800i_coco.py'
)
SUBNET = 'yolov8/yolov8_s_dms-retrain_syncbn_fast_8xb16-500e_coco.py'

# Tuples of the configs, wherever they are, and what they become.
TUPLES = {
    (640, 640): (SIZE, SIZE),
    (1280, 1280): (2 * SIZE, 2 * SIZE),
    (-320, -320): (-SIZE // 2, -SIZE // 2),
    (1333, 800): (SIZE, SIZE),
    (480, 800): (SIZE // 2, SIZE),
    (1, 3, 640, 640): (1, 3, SIZE, SIZE),
    (1, 3, 800, 1344): (1, 3, SIZE, SIZE),
}
KEYS = dict(
    num_classes=3,
    img_size=SIZE,
    widen_factor=0.125,
    data_prefix=dict(img='images/'),
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    max_epochs=2,
    max_iters=4,
    val_interval=2,
    dynamic_intervals=None,
    interval=1,
    switch_epoch=1,
    num_last_epochs=0,
    score_thr=0.0,
)
FPN = {
    'backbone.depth': 18,
    'neck.in_channels': [64, 128, 256, 512],
    'neck.out_channels': 32,
}
PARTS = {
    'RetinaNet': {
        **FPN,
        'bbox_head.in_channels': 32,
        'bbox_head.feat_channels': 32,
    },
    'Faster R-CNN': {
        **FPN,
        'rpn_head.in_channels': 32,
        'rpn_head.feat_channels': 32,
        'roi_head.bbox_roi_extractor.out_channels': 32,
        'roi_head.bbox_head.in_channels': 32,
        'roi_head.bbox_head.fc_out_channels': 64,
        'test_cfg.rpn.max_per_img': 20,
    },
}


def shrunk(part, folder):
    """A part of a config with small values, and nothing to download."""
    if isinstance(part, dict):
        if part.get('type') == 'Pretrained' and '://' in part['checkpoint']:
            return None
        return {k: KEYS.get(k, shrunk(v, folder)) for k, v in part.items()}
    if isinstance(part, str):
        part = part.replace('data/coco/', f'{folder}/')
        return part.replace('instances_', '').replace('2017.json', '.json')
    if isinstance(part, tuple) and part in TUPLES:
        return TUPLES[part]
    if isinstance(part, (list, tuple)):
        return type(part)(shrunk(value, folder) for value in part)
    return part


@pytest.fixture
def small(read_config, coco_data, tmp_path, monkeypatch):
    """Read a detector's config, small, with the work dir of its name."""
    from mmengine.config import Config

    monkeypatch.chdir(tmp_path)
    metainfo = dict(classes=('WBC', 'RBC', 'Platelets'))

    def read(path, detector):
        name = osp.splitext(osp.basename(path))[0]
        plain = read_config(path, f'work_dirs/{name}', {})
        cfg = Config(shrunk(plain.to_dict(), coco_data))
        options = {
            f'model.architecture.{key}': value
            for key, value in PARTS.get(detector, {}).items()
        }
        for split in ('train', 'val', 'test'):
            options[f'{split}_dataloader.dataset.metainfo'] = metainfo
        cfg.merge_from_dict(options)
        return cfg

    return read


class Recorder(Hook):
    """Notes learning rates and pruning ratios of each step."""

    priority = 'LOWEST'

    def __init__(self):
        self.lrs = []
        self.ratios = []
        self.weights = {}

    def before_train(self, runner):
        named = runner.model.architecture.named_parameters()
        self.weights = {name: value.detach().clone() for name, value in named}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        groups = runner.optim_wrapper.optimizer.param_groups
        self.lrs.append([group['lr'] for group in groups])

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        topk = runner.model.mutator.topk
        self.ratios.append(topk.pruning_ratio.detach().clone())


def train(cfg, *hooks):
    from mmengine.runner import Runner

    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    assert 'val/coco/bbox_mAP' in runner.message_hub.log_scalars
    return runner


def search(cfg):
    cfg.custom_hooks[-1].update(target=0.5, divisor=2)
    recorder = Recorder()
    runner = train(cfg, recorder)
    assert len({lrs[0] for lrs in recorder.lrs}) > 2
    assert recorder.ratios[-1].max() > 0.01
    assert not torch.equal(recorder.ratios[1], recorder.ratios[3])
    return runner


@pytest.mark.parametrize('detector', SEARCHES)
def test_search_export_retrain(detector, small):
    from mmdet.apis import inference_detector, init_detector
    from mmengine.registry import MODELS
    from mmengine.runner import load_checkpoint

    from dms_mmrazor.subnet import load_structure

    searched = search(small(SEARCHES[detector], detector))
    check_switches(searched, detector)
    folder = f'{searched.work_dir}/subnet/subnet'
    macs = load_structure(f'{folder}.yaml').resources['macs']
    assert macs['subnet'] <= macs['target'] < macs['supernet']
    exported = torch.load(f'{folder}.pth')['state_dict']

    cfg = small(RETRAININGS[detector], detector)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    retrained = train(cfg)
    assert retrained.iter == 2
    stock = type(retrained.model)
    assert stock.__name__ == cfg.model.architecture.type
    checkpoint = f'{cfg.work_dir}/epoch_1.pth'
    saved = torch.load(checkpoint)['state_dict']
    assert shapes(saved) == shapes(exported)
    if 'init_cfg' in cfg.model:  # went on from the weights of the search
        for name, value in exported.items():
            assert torch.allclose(saved[name], value, atol=1e-3), name
    plain = MODELS.build(cfg.model)
    load_checkpoint(plain, checkpoint, strict=True)

    model = init_detector(cfg, checkpoint, palette='random', device='cpu')
    assert type(model) is stock
    image = np.full((SIZE, SIZE, 3), 99, np.uint8)
    found = inference_detector(model, image).pred_instances
    assert found.scores.isfinite().all()


def check_switches(runner, detector):
    """What mmyolo's and mmdet's hooks have changed for the last epoch."""
    transforms = runner.train_dataloader.dataset.pipeline.transforms
    mosaic = 'Mosaic' in [type(t).__name__ for t in transforms]
    assert mosaic == (detector == 'YOLOv5')  # which has no such hook
    if detector == 'YOLOX':
        assert runner.model.architecture.bbox_head.use_bbox_aux


def test_structure_only(small):
    """Weights stay what they are, and what is exported is made of them."""
    from mmengine.registry import MODELS

    from dms_mmrazor.subnet import load_structure, prune
    from dms_mmrazor.supernet.difference import max_difference
    from dms_mmrazor.supernet.plain import plain_copy

    cfg = small(STRUCTURE_ONLY, 'YOLOv8')
    cfg.custom_hooks[-1].update(target=0.5, divisor=2)
    recorder = Recorder()
    runner = train(cfg, recorder)
    assert len(recorder.ratios) == 4
    assert recorder.ratios[-1].max() > 0.01
    weights = dict(runner.model.architecture.named_parameters())
    assert recorder.weights.keys() == weights.keys()
    for name, value in recorder.weights.items():
        assert torch.equal(value, weights[name]), name

    cfg = small(SUBNET, 'YOLOv8')
    plain = MODELS.build(cfg.model)
    plain.init_weights()
    structure = load_structure(f'{runner.work_dir}/subnet/subnet.yaml')
    pruned = prune(plain_copy(runner.model.architecture), structure)
    image = torch.rand(1, 3, SIZE, SIZE)
    assert max_difference(pruned, plain, image) < 1e-6


def shapes(state):
    return {name: tuple(value.shape) for name, value in state.items()}
