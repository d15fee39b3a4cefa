"""C2f, YOLOv8's cross stage partial layer with a split.

``main_conv`` gives two halves y_0 and y_1, block i turns y_i into y_{i+1},
and ``final_conv`` reads them all, concatenated. With a shortcut,
y_{i+1} = y_i + m_i f(y_i): without the block its slice of the concatenation
repeats the one before. So the slice goes, and its columns of ``final_conv``
are added to those of the slice before, which computes exactly the same.
"""

import importlib
from typing import NamedTuple, Optional, Sequence, Tuple

import torch
from torch import nn

from dms_mmrazor.layers.kind import narrow_layer
from dms_mmrazor.layers.known_types import C2F, is_kind

_OPS = 'dms_mmrazor.plugins.mmyolo'


class RepeatedSlice(NamedTuple):
    """Input channels of a layer that come out of a block alone.

    Attributes:
        layer (str): Name of the layer.
        start (int): Its first such input channel.
        end (int): The one after the last.
    """

    layer: str
    start: int
    end: int


def is_split_layer(module: nn.Module) -> bool:
    """Whether a module is a C2f."""
    return is_kind(module, C2F)


def split_sizes(module: nn.Module) -> Tuple[int, int]:
    """Channels of both halves of a C2f, read from its layers."""
    second = module.blocks[0].conv1.conv.in_channels
    return module.main_conv.conv.out_channels - second, second


def repeated_slice(model: nn.Module, block: str) -> Optional[RepeatedSlice]:
    """What a concatenation loses with a block, if the block feeds one.

    Args:
        model (nn.Module): The plain supernet.
        block (str): Full name of a removable block.
    """
    name = block.rpartition('.')[0].rpartition('.')[0]
    owner = model.get_submodule(name)
    if not is_split_layer(owner):
        return None
    size = split_sizes(owner)[1]
    index = list(owner.blocks._modules).index(block.rpartition('.')[2])
    start = owner.main_conv.conv.out_channels + index * size
    return RepeatedSlice(f'{name}.final_conv.conv', start, start + size)


@torch.no_grad()
def merge_slices(module: nn.Module, removed: Sequence[str]) -> None:
    """Let ``final_conv`` read the slice before each removed one instead.

    Args:
        module (nn.Module): A C2f with all its blocks; changed in place.
        removed (Sequence[str]): Names of the blocks in its list that will
            be removed.
    """
    size = split_sizes(module)[1]
    conv = module.final_conv.conv
    first = module.main_conv.conv.out_channels
    weight = conv.weight.clone()  # copies of the model may share the old one
    kept = torch.ones(conv.in_channels, dtype=torch.bool)
    # Backwards: a slice before may be removed, too, and passes both on.
    for index, name in reversed(list(enumerate(module.blocks._modules))):
        if name in removed:
            start = first + index * size
            columns = weight[:, start : start + size]
            weight[:, start - size : start] += columns
            kept[start : start + size] = False
    trains = conv.weight.requires_grad
    conv.weight = nn.Parameter(weight, requires_grad=trains)
    narrow_layer(conv, None, kept.nonzero().flatten())


def refresh_split(module: nn.Module) -> None:
    """Let a C2f split where its narrowed layers do, in place.

    With equal halves it stays mmyolo's class, otherwise it becomes one that
    knows both sizes; parameters and keys are the same.
    """
    sizes = split_sizes(module)
    module.mid_channels = sizes[1]
    if sizes[0] == sizes[1]:
        return
    ops = importlib.import_module(_OPS)
    module.__class__ = ops.SlimCSPLayerWithTwoConv
    module.split_sizes = sizes
