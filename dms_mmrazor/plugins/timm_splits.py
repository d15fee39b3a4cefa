"""Blocks of timm that split their channels by numbers of their own.

The layers that read the parts tell what the numbers are after a cut.
"""

from typing import ClassVar, Tuple

from torch import nn

from dms_mmrazor.layers.block import BlockKind, register_block


@register_block
class SelectiveKernelKind(BlockKind):
    """Selective kernels, of which each may read a part of the channels."""

    names: ClassVar[Tuple[str, ...]] = (
        'timm.layers.selective_kernel.SelectiveKernel',
    )

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """The channels of all parts, which keep the same ones."""
        parts = [path.conv.in_channels for path in block.paths]
        block.in_channels = sum(parts) if block.split_input else parts[0]


@register_block
class MixedConvKind(BlockKind):
    """Convolutions of several sizes side by side."""

    names: ClassVar[Tuple[str, ...]] = (
        'timm.layers.mixed_conv2d.MixedConv2d',
    )

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """What each of them reads."""
        block.splits = [conv.in_channels for conv in block.values()]
        block.in_channels = sum(block.splits)
        block.out_channels = sum(conv.out_channels for conv in block.values())


@register_block
class GatedConvKind(BlockKind):
    """A block of MambaOut: gates, what passes, and what is convolved."""

    names: ClassVar[Tuple[str, ...]] = ('timm.models.mambaout.GatedConvBlock',)

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """As many gates as there are of the others together."""
        gates, convolved = block.fc2.in_features, block.conv.in_channels
        block.split_indices = (gates, gates - convolved, convolved)


@register_block
class FocalModulationKind(BlockKind):
    """A modulation of FocalNet: queries, context, and gates of its levels."""

    names: ClassVar[Tuple[str, ...]] = (
        'timm.models.focalnet.FocalModulation',
    )

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """What the layers behind the split read."""
        queries, context = block.h.out_channels, block.h.in_channels
        block.input_split = [queries, context, block.focal_level + 1]


@register_block
class PixelEmbedKind(BlockKind):
    """The embedding of TNT, which cuts a map into patches of pixels."""

    names: ClassVar[Tuple[str, ...]] = ('timm.models.tnt.PixelEmbed',)

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """The channels of a pixel."""
        block.in_dim = block.proj.out_channels


@register_block
class PartialConvKind(BlockKind):
    """A block of FasterNet, which convolves a part of its channels."""

    names: ClassVar[Tuple[str, ...]] = ('timm.models.fasternet.MLPBlock',)

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """What the convolution reads, and the rest of what follows it."""
        part, conv = block.spatial_mixing, block.spatial_mixing.partial_conv3
        part.dim_conv3 = conv.in_channels
        part.dim_untouched = block.mlp[0].in_channels - conv.out_channels
