"""Models whose tensors depend on what a data sample says of its image.

The DETR family asks the samples for the sizes of the images that they were
padded from, to mask the padding. The demo input has none.
"""

import sys
from typing import Any, List, Sequence

from torch import nn

from dms_mmrazor.layers.known_types import DETR, MASKFORMER, is_kind


def asks_samples(model: nn.Module) -> bool:
    """Whether a model does not run on images alone.

    Args:
        model (nn.Module): Any model.
    """
    return is_kind(model, DETR) or is_kind(model, MASKFORMER)


def image_samples(shape: Sequence[int]) -> List[Any]:
    """A data sample without objects for each image, none of them padded.

    Args:
        shape (Sequence[int]): (B, C, H, W).

    Returns:
        list[DetDataSample]: One of each image.
    """
    structures = sys.modules['mmdet.structures']
    return [
        structures.DetDataSample(metainfo=image_meta(shape))
        for _ in range(shape[0])
    ]


def image_meta(shape: Sequence[int]) -> dict:
    """What a data sample tells of an image that is not padded.

    Args:
        shape (Sequence[int]): (B, C, H, W).
    """
    size = tuple(shape[2:])
    keys = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    return dict({key: size for key in keys}, scale_factor=(1.0, 1.0))
