"""mmsegmentation's Swin transformer, and what its models learn from."""

from typing import List, Tuple

import torch
from mmengine.structures import PixelData
from mmseg.models.backbones.swin import ShiftWindowMSA, WindowMSA
from mmseg.structures import SegDataSample
from torch import nn

from dms_mmrazor.graph.demo import image_meta
from dms_mmrazor.layers.window_attention import (
    WindowsOfAnyDims,
    register_swin,
)


class SlimWindowAttention(WindowsOfAnyDims, WindowMSA):
    """What ``WindowMSA`` becomes in an exported model."""


register_swin(
    WindowMSA,
    ShiftWindowMSA,
    'mmseg.models.backbones.swin.SwinTransformer',
    SlimWindowAttention,
)


def demo_samples(
    model: nn.Module, size: Tuple[int, ...]
) -> List[SegDataSample]:
    """The first class for all pixels of two images.

    Args:
        model (nn.Module): Any segmentor.
        size (tuple): (B, C, H, W).
    """
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=image_meta(size))
        classes = torch.zeros(1, *size[2:], dtype=torch.long)
        sample.gt_sem_seg = PixelData(data=classes)
        samples.append(sample)
    return samples
