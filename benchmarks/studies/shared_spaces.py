"""Small supernets of OFA's and AutoFormer's spaces, for 16×16 pixels."""

import copy
import os.path as osp
from typing import Any, Dict, NamedTuple, Optional, Tuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

import dms_mmrazor.models.spaces  # noqa: F401, I001
import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)

BASES = osp.join(
    *[osp.dirname(osp.abspath(__file__)), '..', '..'],
    *['configs', '_base_', 'spaces'],
)
SIZE = 16


class Space(NamedTuple):
    """A supernet, its space and its training.

    Attributes:
        backbone (dict): Config of the backbone.
        head (dict): Config of the head; with a neck for a feature map.
        base (str): File of the space in ``configs/_base_/spaces``.
        key (str): Of the space in that file.
        targets (tuple[float]): MACs relative to the reference.
        optimizer (str): 'sgd' or 'adamw'.
        lr (float): Highest learning rate.
        weight_decay (float): Of weights with two dimensions or more.
        reference (str): Space whose MACs targets are relative to. Defaults
            to '', its own.
        min_ratio (float, optional): Of all widths, instead of the file's.
            Defaults to None.
    """

    backbone: Dict[str, Any]
    head: Dict[str, Any]
    base: str
    key: str
    targets: Tuple[float, ...]
    optimizer: str
    lr: float
    weight_decay: float
    reference: str = ''
    min_ratio: Optional[float] = None


_OFA = dict(
    type='mmrazor.OFAMobileNetV3',
    widths=(16, 24, 40),
    strides=(1, 2, 2),
    acts=('ReLU', 'HSwish', 'HSwish'),
    squeezed=(False, True, True),
    depth=4,
    kernel_size=3,
    stem_channels=16,
    stem_stride=1,
    out_channels=160,
)
_STACKED = dict(
    type='mmpretrain.StackedLinearClsHead',
    num_classes=10,
    in_channels=160,
    mid_channels=[192],
    act_cfg=dict(type='HSwish'),
)


def _autoformer(embedding: int, heads: int, **settings: Any) -> Space:
    backbone = dict(
        type='mmrazor.PlainAutoFormer',
        embed_dims=embedding,
        num_heads=heads,
        depth=6,
        head_dims=16,
        img_size=SIZE,
        patch_size=4,
    )
    head = dict(
        type='mmpretrain.LinearClsHead',
        num_classes=10,
        in_channels=embedding,
    )
    targets = (0.55, 0.7, 0.85)
    training = dict(optimizer='adamw', lr=2e-3, weight_decay=0.05)
    base = dict(base='autoformer.py', key='space', targets=targets)
    return Space(backbone, head, **{**base, **training, **settings})


SPACES: Dict[str, Space] = {
    'ofa': Space(
        *(_OFA, _STACKED, 'ofa_mobilenetv3.py', 'space'),
        *((0.45, 0.6, 0.75), 'sgd', 0.1, 2e-4),
    ),
    'autoformer': _autoformer(80, 4),
    'autoformer-fine': _autoformer(80, 4, key='fine_space'),
    # Almost three times the MACs, down to those of the small one's subnets.
    'autoformer-large': _autoformer(
        140, 6, key='fine_space', reference='autoformer', min_ratio=0.4
    ),
}


def build(space: Space, seed: int) -> nn.Module:
    """A supernet with the weights of a seed."""
    torch.manual_seed(seed)
    cfg: Dict[str, Any] = dict(
        type='mmpretrain.ImageClassifier',
        backbone=copy.deepcopy(space.backbone),
        head=copy.deepcopy(space.head),
    )
    if 'mid_channels' in space.head:
        cfg['neck'] = dict(type='mmpretrain.GlobalAveragePooling')
    model = MODELS.build(cfg)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode='fan_out')
    return model


def mutator_settings(space: Space) -> Dict[str, Any]:
    """Arguments of DMSMutator, from the config of the space."""
    cfg = Config.fromfile(osp.join(BASES, space.base))
    settings = cfg[space.key].to_dict()
    settings.pop('type')
    if 'depth_unit_cfg' in settings:
        settings['depth_unit_cfg']['default_args']['min_blocks'] = 4
    if space.min_ratio is not None:
        for unit in settings['channel_unit_cfg']['units'].values():
            unit['init_args']['min_ratio'] = space.min_ratio
    return settings
