"""Blocks of parallel convolutions that their libraries can make one of.

When they do (``switch_to_deploy``, timm's ``reparameterize_model``), they
build a convolution by numbers that the block remembers.
"""

from typing import ClassVar, Optional, Tuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from dms_mmrazor.layers.block import BlockKind, register_block

_ASIDE = ('se', 'attn', 'se_layer')
"""Where a block has convolutions that do not become a part of the one."""

_READ = ('in_channels', 'in_chs', 'dim')
_GIVEN = ('out_channels', 'out_chs', 'dim_out')
"""What blocks call the channels that they read, and those that they give."""


@register_block
class ReparameterizedKind(BlockKind):
    """Such a block: its numbers are those of its convolutions."""

    names: ClassVar[Tuple[str, ...]] = (
        'mmpretrain.models.backbones.mobileone.MobileOneBlock',
        'mmpretrain.models.backbones.repvgg.RepVGGBlock',
        'mmyolo.models.layers.yolo_bricks.RepVGGBlock',
        'timm.models.byobnet.MobileOneBlock',
        'timm.models.fastvit.MobileOneBlock',
        'timm.models.fastvit.RepConditionalPosEnc',
        'timm.models.fastvit.RepMixer',
        'timm.models.fastvit.ReparamLargeKernelConv',
        'timm.models.lcnetv2.RepDepthwiseSeparable',
    )

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """Let it remember what its first convolution or norm has now."""
        first = _first_layer(block)
        if first is None:
            return
        if isinstance(first, _ConvNd):
            read, given = first.in_channels, first.out_channels
            groups = first.groups
        else:  # of a depthwise block that only passes its input on
            read = given = first.num_features
            groups = _number(block, ('groups',))
            groups = read if groups == _number(block, _READ) else groups
        for keys, number in ((_READ, read), (_GIVEN, given)):
            for key in keys:
                if _number(block, (key,)):
                    setattr(block, key, number)
        if _number(block, ('groups',)):
            block.groups = groups


def _first_layer(block: nn.Module) -> Optional[nn.Module]:
    """The first convolution, or norm, that is not aside."""
    for kind in (_ConvNd, _BatchNorm):
        for name, module in block.named_modules():
            aside = name.partition('.')[0] in _ASIDE
            if isinstance(module, kind) and not aside:
                return module
    return None


def _number(block: nn.Module, keys: Tuple[str, ...]) -> int:
    """What it remembers by the first of some names; 0 for nothing."""
    found = (getattr(block, key, None) for key in keys)
    return next((value for value in found if isinstance(value, int)), 0)
