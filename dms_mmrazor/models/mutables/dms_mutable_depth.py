"""The mutable of a stage's depth."""

from typing import Any, Dict, Optional, Union

import torch
from mmrazor.models.mutables.base_mutable import BaseMutable
from torch import Tensor

from dms_mmrazor.models.mutables.dms_mutable_channel import as_kept
from dms_mmrazor.models.mutables.masks import Places, TopkOperator
from dms_mmrazor.registry import MODELS


@MODELS.register_module()
class DMSMutableDepth(BaseMutable):
    """Residual blocks of one stage, chosen by a differentiable top-k.

    Args:
        num_blocks (int): Number of removable blocks N.
        **kwargs: Passed to mmrazor's ``BaseMutable``.
    """

    def __init__(self, num_blocks: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_blocks = num_blocks
        self.operator: Optional[TopkOperator] = None

    @property
    def mask(self) -> Optional[Tensor]:
        """Mask [N] of the current step; ``None``: all are kept."""
        return None if self.operator is None else self.operator.mask

    @property
    def places(self) -> Optional[Places]:
        """Where its masks are; ``None``: nothing searches them."""
        return None if self.operator is None else self.operator.places

    @property
    def current_mask(self) -> Tensor:
        """bool [N]: the blocks that an export now would keep."""
        if self.operator is None:
            return torch.ones(self.num_blocks, dtype=torch.bool)
        return self.operator.hard_mask

    @property
    def current_choice(self) -> int:
        """Number of kept blocks."""
        if self.operator is None:
            return self.num_blocks
        return self.operator.kept

    @current_choice.setter
    def current_choice(self, choice: Union[int, float]) -> None:
        if self.operator is not None:
            self.operator.set_kept(as_kept(choice, self.num_blocks))

    def fix_chosen(self, chosen: Optional[int] = None) -> None:
        """Fix the depth, as MMRazor's mutables do."""
        if chosen is not None:
            self.current_choice = chosen
        self.is_fixed = True

    def dump_chosen(self) -> Dict[str, Any]:
        """The kept blocks and their total, as plain data."""
        return {
            'chosen': self.current_mask.tolist(),
            'meta': {'num_blocks': self.num_blocks},
        }
