"""torchvision's vision transformer."""

from torch import nn

from dms_mmrazor.layers.block import BlockKind, register_block


@register_block
class VisionTransformerKind(BlockKind):
    """A vision transformer; its attentions are torch's."""

    names = ('torchvision.models.vision_transformer.VisionTransformer',)

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """The width by which it flattens the patches."""
        block.hidden_dim = block.conv_proj.out_channels
