"""A smaller copy of each candidate for the short training (MOTE's "RA").

MOTE's authors drop all but the searched cells of a benchmark's network. What
a candidate of ours can do without is resolution and repeated blocks.
"""

import math
from typing import Any, Tuple

import torch.nn.functional as F
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.subnet import Structure


def fewer_blocks(structure: Structure, portion: float) -> Structure:
    """The same structure with the first of the kept blocks of each stage.

    Args:
        structure (Structure): A candidate. Its resources are still those of
            the whole candidate.
        portion (float): Of the kept blocks, rounded up, in (0, 1].

    Raises:
        DMSError: If the portion is out of range.
    """
    _check('repeats', portion)
    stages = []
    for stage in structure.stages:
        number = math.ceil(portion * len(stage.kept) - 1e-9)
        stages.append(stage._replace(kept=stage.kept[:number]))
    return structure._replace(stages=tuple(stages))


def lower_resolution(model: nn.Module, portion: float) -> None:
    """Let a classifier see images with shorter sides.

    They are averaged over areas before the first layer, so the time of
    reading them stays.

    Args:
        model (nn.Module): With a ``backbone``, or called with the images
            alone; it is changed in place.
        portion (float): Of the sides, in (0, 1].

    Raises:
        DMSError: If the portion is out of range, or boxes and masks of a
            detector would have to be made smaller too.
    """
    _check('resolution', portion)
    if portion == 1:
        return
    detects = ('bbox_head', 'rpn_head', 'roi_head', 'decode_head')
    if any(hasattr(model, name) for name in detects):
        raise DMSError(
            '`resolution`: boxes and masks would have to shrink as well; '
            "lower the scales of the config's pipelines by --cfg-options."
        )
    first = getattr(model, 'backbone', model)

    def shrink(_: nn.Module, args: Tuple[Any, ...]) -> Any:
        images, *others = args
        return (smaller(images, portion), *others)

    first.register_forward_pre_hook(shrink)


def smaller(images: Tensor, portion: float) -> Tensor:
    """Images [B, C, H, W] with sides of a portion, at least one pixel."""
    if images.dim() != 4 or not images.is_floating_point():
        raise DMSError(
            '`resolution` is for images [B, C, H, W], the model takes '
            f'{tuple(images.shape)}.'
        )
    size = [max(round(portion * side), 1) for side in images.shape[2:]]
    return F.interpolate(images, size=size, mode='area')


def _check(key: str, portion: float) -> None:
    if not 0 < portion <= 1:
        raise DMSError(f'`{key}` must be in (0, 1], got {portion!r}.')
