"""Widths and depths as MMRazor's mutables, chosen by a top-k."""

from typing import Any, Dict, Optional, Union

import torch
from mmrazor.models.mutables.base_mutable import BaseMutable
from mmrazor.models.mutables.mutable_channel import (
    BaseMutableChannel,
    MutableChannelContainer,
)
from torch import Tensor

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutables.masks import Places, TopkOperator, beside
from dms_mmrazor.registry import MODELS


class ChosenByTopk:
    """What a number of channels and one of blocks have in common.

    Attributes:
        operator (TopkOperator, optional): Chooses; ``None``: all are kept.
    """

    operator: Optional[TopkOperator]

    @property
    def total(self) -> int:
        """Number of channels (blocks) N."""
        raise NotImplementedError

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
        """bool [N]: what an export now would keep."""
        if self.operator is None:
            return torch.ones(self.total, dtype=torch.bool)
        return self.operator.hard_mask

    @property
    def current_choice(self) -> int:
        """Number of kept channels (blocks)."""
        return self.total if self.operator is None else self.operator.kept

    @current_choice.setter
    def current_choice(self, choice: Union[int, float]) -> None:
        kept = as_kept(choice, self.total)
        if self.operator is not None:
            self.operator.set_kept(kept)
        elif kept != self.total:
            name = getattr(self, 'name', None) or 'this mutable'
            raise DMSError(
                f'{name} cannot keep {kept} of {self.total}: it is not '
                'searched.'
            )


@MODELS.register_module()
class DMSMutableChannel(ChosenByTopk, BaseMutableChannel):
    """Channels chosen by a differentiable top-k.

    Args:
        num_channels (int): Number of channels N.
        **kwargs: Passed to mmrazor's ``BaseMutableChannel``.
    """

    def __init__(self, num_channels: int, **kwargs: Any) -> None:
        super().__init__(num_channels, **kwargs)
        self.operator = None

    @property
    def total(self) -> int:
        """Number of channels N."""
        return self.num_channels

    def num_choices(self) -> int:
        """Number of widths: 1 … N."""
        return self.num_channels


@MODELS.register_module()
class DMSMutableDepth(ChosenByTopk, BaseMutable):
    """Residual blocks of one stage, chosen by a differentiable top-k.

    Args:
        num_blocks (int): Number of removable blocks N.
        **kwargs: Passed to mmrazor's ``BaseMutable``.
    """

    def __init__(self, num_blocks: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_blocks = num_blocks
        self.operator = None

    @property
    def total(self) -> int:
        """Number of removable blocks N."""
        return self.num_blocks

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


def as_kept(choice: Union[int, float], total: int) -> int:
    """A choice as MMRazor writes it: an int counts, a float is a ratio.

    Raises:
        DMSError: If the choice is not in 1 … ``total`` or (0, 1].
    """
    kept = choice
    if isinstance(choice, float):
        kept = max(1, round(choice * total)) if 0 < choice <= 1 else -1
    if not 0 <= kept <= total:
        raise DMSError(
            f'choice {choice} must be an int in 1 … {total} or a float in '
            f'(0, 1].'
        )
    return int(kept)


class ExpandedMutableChannel(BaseMutableChannel):
    """A mutable of which each element stands for ``ratio`` positions.

    Such is the input of a linear layer after a flattened h × w feature map.

    Args:
        source (DMSMutableChannel): The mutable with N channels.
        ratio (int): Positions per channel.
    """

    def __init__(self, source: DMSMutableChannel, ratio: int) -> None:
        super().__init__(source.num_channels * ratio)
        # In a tuple, so that the source is not registered a second time.
        self._source = (source,)
        self.ratio = ratio

    @property
    def places(self) -> Optional[Places]:
        """Where the masks of its positions are."""
        places = self._source[0].places
        if places is None:
            return None
        index = places.index.repeat_interleave(self.ratio, dim=1)
        return Places(places.table, index)

    @property
    def current_mask(self) -> Tensor:
        """bool [N * ratio]: the positions that would be kept now."""
        return self._source[0].current_mask.repeat_interleave(self.ratio)

    @property
    def current_choice(self) -> int:
        """Number of kept positions."""
        return self._source[0].current_choice * self.ratio

    @current_choice.setter
    def current_choice(self, choice: int) -> None:
        self._source[0].current_choice = choice // self.ratio


@MODELS.register_module()
class DMSChannelContainer(MutableChannelContainer):
    """All mutables along the input (output) channels of one layer.

    Ranges that no unit searches count as kept.

    Args:
        num_channels (int): Number of channels on that side of the layer.
        **kwargs: Passed to mmrazor's ``MutableChannelContainer``.
    """

    def __init__(self, num_channels: int, **kwargs: Any) -> None:
        super().__init__(num_channels, **kwargs)

    @property
    def current_mask(self) -> Tensor:
        """bool [num_channels]: what an export now would keep."""
        mask = torch.ones(self.num_channels, dtype=torch.bool)
        for (start, end), mutable in self.mutable_channels.items():
            mask[start:end] = mutable.current_mask.cpu()
        return mask

    @property
    def mask(self) -> Optional[Tensor]:
        """Mask [num_channels] of the current step, or ``None``."""
        places = self.places
        return None if places is None else places.read()

    @property
    def places(self) -> Optional[Places]:
        """Where the masks of all ranges are; 1 where nothing is searched."""
        found = {
            span: mutable.places
            for span, mutable in sorted(self.mutable_channels.items())
        }
        known = {span: p for span, p in found.items() if p is not None}
        if not known:
            return None
        parts, position = [], 0
        for (start, end), places in known.items():
            parts += [torch.full((1, start - position), -1), places.index]
            position = end
        parts.append(torch.full((1, self.num_channels - position), -1))
        table = next(iter(known.values())).table
        return Places(table, beside(parts))
