"""mmyolo's layers cut down.

Imported only when a model uses these layers: mmyolo is optional.
"""

from typing import Tuple

import torch
from mmyolo.models.layers import CSPLayerWithTwoConv
from torch import Tensor


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
