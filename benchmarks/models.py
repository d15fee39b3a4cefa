"""The models that the benchmarks search, with inputs of their usual size."""

import os.path as osp
from importlib import import_module
from typing import Any, Dict, NamedTuple, Optional, Tuple

import torch
from mmengine.config import Config as File
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from torch import nn

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.models.algorithms import DMSAlgorithm

Config = Dict[str, Any]


class Case(NamedTuple):
    """A model with its input.

    Attributes:
        backbone (dict, optional): mmpretrain's config of the backbone; None
            for a detector.
        channels (int): Channels of its output; 0 for a transformer with a
            head of its own.
        batch (int): Images per step on a CPU.
        size (int): Height and width on a CPU.
        gpu_batch (int): Images per step on a GPU. Defaults to 128.
        gpu_size (int): Height and width on a GPU. Defaults to 224.
        config (str): Config file of a package, 'mmyolo::…'. Defaults to ''.
        exclude (tuple[str]): Layers that are not searched. Defaults to ().
    """

    backbone: Optional[Config]
    channels: int
    batch: int
    size: int
    gpu_batch: int = 128
    gpu_size: int = 224
    config: str = ''
    exclude: Tuple[str, ...] = ()


def _yolo(size: str) -> Case:
    file = f'yolov8/yolov8_{size}_syncbn_fast_8xb16-500e_coco.py'
    return Case(None, 0, 4, 320, 16, 640, f'mmyolo::{file}')


def _other(config: str, size: int, *exclude: str) -> Case:
    return Case(None, 0, 1, size, config=config, exclude=exclude)


CASES = {
    'resnet50': Case(dict(type='ResNet', depth=50), 2048, 8, 224),
    'resnet152': Case(dict(type='ResNet', depth=152), 2048, 1, 224),
    'mobilenet_v2': Case(dict(type='MobileNetV2'), 1280, 16, 224),
    'efficientnet_b0': Case(
        dict(type='EfficientNet', arch='b0'), 1280, 8, 224
    ),
    'efficientnet_b7': Case(
        dict(type='EfficientNet', arch='b7'), 2560, 1, 600
    ),
    'deit_tiny': Case(
        dict(type='VisionTransformer', arch='deit-tiny', img_size=224),
        192,
        8,
        224,
    ),
    'swin_base': Case(
        dict(type='SwinTransformer', arch='base', img_size=224), 1024, 1, 224
    ),
    'yolov8_n': _yolo('n'),
    'yolov8_l': _yolo('l'),
    # Those whose preparation took minutes.
    'replknet_31b': _other(
        'mmpretrain::_base_/models/replknet-31B_in1k.py', 64
    ),
    'repmlp_base': _other('mmpretrain::_base_/models/repmlp-base_224.py', 224),
    'davit_tiny': _other('mmpretrain::_base_/models/davit/davit-tiny.py', 224),
    'ssd300': _other('mmdet::ssd/ssd300_coco.py', 300, 'backbone.features.21'),
}


def build(case: Case) -> nn.Module:
    """The plain model of a case, with initialized weights."""
    # The initializers write a line per layer.
    MMLogger.get_current_instance().setLevel('WARNING')
    cfg = _configured(case) if case.config else _classifier(case)
    model = MODELS.build(cfg)
    model.init_weights()
    return model.train()


def _classifier(case: Case) -> Config:
    transformer = case.backbone['type'] == 'VisionTransformer'
    head = 'VisionTransformerClsHead' if transformer else 'LinearClsHead'
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(case.backbone, _scope_='mmpretrain'),
        neck=None
        if transformer
        else dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type=f'mmpretrain.{head}',
            num_classes=1000,
            in_channels=case.channels,
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
        ),
    )


def _configured(case: Case) -> Config:
    package, _, path = case.config.partition('::')
    folder = osp.dirname(str(import_module(package).__file__))
    cfg = File.fromfile(osp.join(folder, '.mim', 'configs', path)).model
    cfg.get('backbone', {}).pop('init_cfg', None)  # nothing is downloaded
    return dict(cfg, _scope_=package)


def shape(case: Case, device: str = 'cpu') -> Any:
    """(batch, height) of a step on a device."""
    if device == 'cpu':
        return case.batch, case.size
    return case.gpu_batch, case.gpu_size


def make_search(
    plain: nn.Module,
    case: Case,
    signal: str = 'gradient',
    **mutator: Any,
) -> DMSAlgorithm:
    """A search of a model, widths and depths; the model becomes searchable."""
    size = (1, 3, case.size, case.size)
    if case.exclude:
        mutator['exclude'] = list(case.exclude)
    algorithm = DMSAlgorithm(
        plain,
        mutator=dict(
            type='DMSMutator', parse_cfg=dict(demo_input=size), **mutator
        ),
        structure_step=dict(signal=signal),
    )
    return algorithm.train()


def make_batch(case: Case, device: str = 'cpu') -> Config:
    """Random images with labels, as the data loader would give them."""
    batch, size = shape(case, device)
    if case.config.startswith('mmyolo'):
        return _boxes(batch, size)
    from mmpretrain.structures import DataSample

    images = torch.randn(batch, 3, size, size)
    labels = torch.randint(1000, (batch,))
    samples = [DataSample().set_gt_label(label) for label in labels]
    return dict(inputs=images, data_samples=samples)


def _boxes(batch: int, size: int, number: int = 8) -> Config:
    """Images with ``number`` boxes each, as mmyolo collates them."""
    corner = torch.rand(batch, number, 2) * size * 0.6
    extent = (0.1 + 0.3 * torch.rand(batch, number, 2)) * size
    index = torch.arange(batch).view(-1, 1, 1).expand(-1, number, 1)
    label = torch.randint(80, (batch, number, 1))
    rows = torch.cat([index, label, corner, corner + extent], dim=-1)
    return dict(
        inputs=torch.randint(256, (batch, 3, size, size), dtype=torch.uint8),
        data_samples=dict(
            bboxes_labels=rows.view(-1, 6),
            img_metas=[dict(batch_input_shape=(size, size))] * batch,
        ),
    )
