"""Made-up data samples, where images alone are not enough."""

import sys
from typing import Any, Dict, Iterator, Sequence, Tuple

import torch
from torch import Tensor, nn


def demo_samples(model: nn.Module, size: Tuple[int, ...]) -> Iterator[Any]:
    """What a model may want to know of two images; at last, nothing.

    Args:
        model (nn.Module): A model of one of OpenMMLab's libraries.
        size (tuple): (B, C, H, W); B does not matter.
    """
    libraries = {
        kind.__module__.partition('.')[0] for kind in type(model).mro()
    }
    # From `sys.modules`: a model of a library has imported it, and no other
    # library is needed.
    if 'mmpretrain' in libraries:
        structures = sys.modules['mmpretrain.structures']
        yield [
            structures.DataSample().set_gt_label([label]) for label in (0, 0)
        ]
    if 'mmdet' in libraries:
        yield [_detection(size) for _ in range(2)]
    if 'mmyolo' in libraries:
        yield _yolo(size)
    if 'mmseg' in libraries:
        yield [_segmentation(size) for _ in range(2)]
    if 'mmpose' in libraries:
        yield [_pose(model, size) for _ in range(2)]
    yield None


def _box(size: Tuple[int, ...]) -> Tensor:
    """The middle of an image [1, 4]."""
    height, width = size[2:]
    corners = (width / 4, height / 4, width * 3 / 4, height * 3 / 4)
    return torch.tensor([corners])


def _detection(size: Tuple[int, ...]) -> Any:
    """An object with a mask, as mmdet describes it."""
    structures = sys.modules['mmdet.structures']
    masks = sys.modules['mmdet.structures.mask']
    elements = sys.modules['mmengine.structures']
    sample = structures.DetDataSample(metainfo=image_meta(size))
    mask = torch.zeros(1, *size[2:], dtype=torch.uint8).numpy()
    mask[:, size[2] // 4 : -(size[2] // 4), size[3] // 4 :] = 1
    sample.gt_instances = elements.InstanceData(
        bboxes=_box(size),
        labels=torch.zeros(1, dtype=torch.long),
        masks=masks.BitmapMasks(mask, *size[2:]),
    )
    classes = torch.zeros(1, *size[2:], dtype=torch.long)
    sample.gt_sem_seg = elements.PixelData(sem_seg=classes)
    return sample


def _yolo(size: Tuple[int, ...]) -> Dict[str, Any]:
    """An object of each of two images, as mmyolo describes them."""
    rows = [
        torch.cat([torch.tensor([[float(index), 0.0]]), _box(size)], dim=1)
        for index in range(2)
    ]
    return dict(
        bboxes_labels=torch.cat(rows), img_metas=[image_meta(size)] * 2
    )


def _segmentation(size: Tuple[int, ...]) -> Any:
    """A class for each pixel, as mmseg describes it."""
    elements = sys.modules['mmengine.structures']
    structures = sys.modules['mmseg.structures']
    sample = structures.SegDataSample(metainfo=image_meta(size))
    classes = torch.zeros(1, *size[2:], dtype=torch.long)
    sample.gt_sem_seg = elements.PixelData(data=classes)
    return sample


def _pose(model: nn.Module, size: Tuple[int, ...]) -> Any:
    """Heatmaps of a person's keypoints, as mmpose describes them."""
    elements = sys.modules['mmengine.structures']
    structures = sys.modules['mmpose.structures']
    sample = structures.PoseDataSample(metainfo=image_meta(size))
    number = getattr(getattr(model, 'head', None), 'out_channels', 1)
    maps = torch.full((number, size[2] // 4, size[3] // 4), 0.5)
    sample.gt_fields = elements.PixelData(heatmaps=maps)
    weights = torch.ones(1, number)
    sample.gt_instance_labels = elements.InstanceData(keypoint_weights=weights)
    return sample


def image_meta(shape: Sequence[int]) -> dict:
    """What a data sample tells of an image that is not padded.

    Args:
        shape (Sequence[int]): (B, C, H, W).
    """
    size = tuple(shape[2:])
    keys = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    return dict({key: size for key in keys}, scale_factor=(1.0, 1.0))
