"""mmyolo's C2f, the cross stage partial layer of YOLOv8 with a split.

``main_conv`` gives two halves y_0 and y_1, block i turns y_i into y_{i+1},
and ``final_conv`` reads them all, concatenated. With a shortcut,
y_{i+1} = y_i + m_i f(y_i): without the block its slice of the concatenation
repeats the one before. So the slice goes, and its columns of ``final_conv``
are added to those of the slice before, which computes exactly the same.
"""

from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from mmyolo.models.layers import CSPLayerWithTwoConv
from torch import Tensor, nn

from dms_mmrazor.graph.demo import image_meta, middle_box
from dms_mmrazor.layers.block import (
    BlockKind,
    RepeatedSlice,
    register_block,
)
from dms_mmrazor.layers.kind import narrow_layer


class SlimCSPLayerWithTwoConv(CSPLayerWithTwoConv):
    """``CSPLayerWithTwoConv`` (C2f) whose halves differ in width.

    What a C2f becomes in an exported model unless its halves are equal: the
    same parameters and keys.

    Attributes:
        split_sizes (tuple[int, int]): Channels of the half that is passed
            on, and of the half that the blocks work on.
    """

    split_sizes: Tuple[int, int]

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, C, H, W] to [B, C', H, W]."""
        parts = list(self.main_conv(x).split(self.split_sizes, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.final_conv(torch.cat(parts, 1))


def split_sizes(module: nn.Module) -> Tuple[int, int]:
    """Channels of both halves of a C2f, read from its layers."""
    second = module.blocks[0].conv1.conv.in_channels
    return module.main_conv.conv.out_channels - second, second


@register_block
class SplitLayerKind(BlockKind):
    """A C2f, whose last convolution reads each of its blocks."""

    types = (CSPLayerWithTwoConv,)

    def repeated(self, block: nn.Module, path: str) -> Optional[RepeatedSlice]:
        """The slice of the concatenation that a block gives."""
        size = split_sizes(block)[1]
        index = list(block.blocks._modules).index(path.rpartition('.')[2])
        start = block.main_conv.conv.out_channels + index * size
        return RepeatedSlice('final_conv.conv', start, start + size)

    @torch.no_grad()
    def merge(self, block: nn.Module, removed: Sequence[str]) -> None:
        """Let ``final_conv`` read the slice before each removed one."""
        size = split_sizes(block)[1]
        conv = block.final_conv.conv
        first = block.main_conv.conv.out_channels
        weight = conv.weight.clone()  # copies of the model may share the old
        kept = torch.ones(conv.in_channels, dtype=torch.bool)
        # Backwards: a slice before may be removed, too, and passes both on.
        for index, name in reversed(list(enumerate(block.blocks._modules))):
            if name in removed:
                start = first + index * size
                columns = weight[:, start : start + size]
                weight[:, start - size : start] += columns
                kept[start : start + size] = False
        trains = conv.weight.requires_grad
        conv.weight = nn.Parameter(weight, requires_grad=trains)
        narrow_layer(conv, None, kept.nonzero().flatten())

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """Split where the narrowed layers do.

        With equal halves it stays mmyolo's class, otherwise it becomes one
        that knows both sizes; parameters and keys are the same.
        """
        sizes = split_sizes(block)
        block.mid_channels = sizes[1]
        if sizes[0] != sizes[1]:
            block.__class__ = SlimCSPLayerWithTwoConv
            block.split_sizes = sizes


def demo_samples(model: nn.Module, size: Tuple[int, ...]) -> Dict[str, Any]:
    """An object of each of two images, as mmyolo collates them.

    Args:
        model (nn.Module): Any detector.
        size (tuple): (B, C, H, W).
    """
    rows = [
        torch.cat([torch.tensor([[float(index), 0.0]]), middle_box(size)], 1)
        for index in range(2)
    ]
    meta = [image_meta(size)] * 2
    return dict(bboxes_labels=torch.cat(rows), img_metas=meta)
