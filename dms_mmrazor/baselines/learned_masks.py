"""What mask parametrizations without a pruning ratio share (Table 2)."""

import math
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor, nn

from dms_mmrazor.core import FlatTopk
from dms_mmrazor.core.operators import check_index, elements_for

__all__ = ['LearnedMasks']


class LearnedMasks(FlatTopk):
    """What the three parametrizations without a pruning ratio share.

    The inherited ``pruning_ratio`` is not learned; it shows, after
    :meth:`project_`, the portion that is not kept.

    Attributes:
        learned (nn.Parameter): All that is learned, shape [L].
        held_learned (Tensor): Values at which operators are held, [L].
        noise (Tensor): Of this step's sample, shape [L].

    Args:
        *args (Any): As :class:`FlatTopk`.
        seed (int): Of the noise; equal on all ranks. Defaults to 0.
        **kwargs (Any): As :class:`FlatTopk`.
    """

    step_settings = {'rule': 'adam', 'lr': 0.03}

    held_learned: Tensor
    noise: Tensor
    learned_owner: Tensor

    def __init__(self, *args: Any, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seed = seed
        self.pruning_ratio.requires_grad_(False)
        values, owner = self._start()
        self.learned = nn.Parameter(values)
        self.register_buffer('learned_owner', owner, persistent=False)
        self.register_buffer('held_learned', values.clone())
        self.register_buffer('noise', torch.zeros_like(values))
        fewest, most = zip(*((op.fewest, op.most) for op in self.operators))
        for name, value in (('fewest', fewest), ('most', most)):
            buffer = torch.tensor(value)
            self.register_buffer(name, buffer, persistent=False)
        self._resample()

    def learnable(self) -> List[nn.Parameter]:
        """What a search learns."""
        return [self.learned]

    def limits(self) -> Tuple[Tensor, Tensor]:
        """Lower and upper limits of what is learned, each [L]."""
        free = self.held[self.learned_owner] == 0
        ends = torch.full_like(self.learned, math.inf)
        low, high = self._bounded(-ends), self._bounded(ends)
        return (
            torch.where(free, low.detach(), self.held_learned),
            torch.where(free, high.detach(), self.held_learned),
        )

    def soft_mask(self) -> Tensor:
        """Masks [C] of this step; what is held goes to its hard mask."""
        held = self.layout.to_elements(self.held)
        hard = self._hard().to(held.dtype)
        soft = torch.where(held > 0, self._expected().detach(), self._sample())
        return self.layout.to_channels(torch.lerp(soft, hard, held))

    def expected_mask(self, shown: Optional[Tensor] = None) -> Tensor:
        """Masks [C] as the resource model sees them, differentiable."""
        held = self.layout.to_elements(self.held)
        hard = self._hard().to(held.dtype)
        expected = torch.lerp(self._expected(), hard, held)
        return self.layout.to_channels(expected)

    def hard_mask(self) -> Tensor:
        """Masks bool [C] of what would be kept if exported now."""
        return self.layout.to_channels(self._hard())

    def kept(self) -> Tensor:
        """Expected numbers [U] of kept channels, differentiable."""
        kept = self.layout.sum_elements(self._expected() * self.layout.width)
        return torch.lerp(kept, self.held_kept.to(kept.dtype), self.held)

    @torch.no_grad()
    def hard_kept(self) -> Tensor:
        """Exact numbers int64 [U] of channels in the hard masks."""
        return self.layout.sum_elements(self.layout.width * self._hard())

    @torch.no_grad()
    def project_(self) -> None:
        """Bring what is learned back into its limits, in place."""
        self.learned.copy_(self._values())
        self.pruning_ratio.copy_(1 - self.kept() / self.layout.size)

    @torch.no_grad()
    def hold_(self, operators: Any) -> None:
        """Freeze operators at their present hard masks. Synchronizes."""
        values = self._values()
        super().hold_(operators)
        index = torch.as_tensor(operators, device=self.held.device).long()
        mine = torch.zeros_like(self.held, dtype=torch.bool)
        mine[index] = True
        mine = mine[self.learned_owner]
        self.held_learned.copy_(torch.where(mine, values, self.held_learned))

    @torch.no_grad()
    def set_kept_(self, operator: int, kept: int) -> None:
        """Let an operator keep exactly ``kept`` channels. Synchronizes.

        Raises:
            ValueError: If that number cannot be.
        """
        check_index(operator, len(self.sizes))
        mine = self.layout.owner == operator
        order = torch.argsort(self._order()[mine], descending=True)
        widths = self.layout.width[mine][order].tolist()
        space = self.operators[operator]
        elements = elements_for(operator, space, kept, widths)
        values = self._values_keeping(operator, elements, order)
        chosen = self.learned_owner == operator
        self.learned[chosen] = values
        self.held_learned[chosen] = values
        self.held_kept[operator] = kept
        ratio = 1 - elements / space.num_elements
        self.pruning_ratio[operator] = ratio
        self.held_ratio[operator] = ratio

    def update_importance_(self, *args: Any, **kwargs: Any) -> None:
        """As :class:`FlatTopk`; the next step gets a sample of its own."""
        super().update_importance_(*args, **kwargs)
        self._resample()

    # what the parametrizations define

    def _start(self) -> Tuple[Tensor, Tensor]:
        """First values [L] and the operator [L] of each."""
        raise NotImplementedError

    def _bounded(self, values: Tensor) -> Tensor:
        """Values [L] within their limits."""
        return values

    def _order(self) -> Tensor:
        """Who is kept first: ranks [E], the largest first."""
        raise NotImplementedError

    def _hard(self) -> Tensor:
        """Kept elements bool [E]."""
        raise NotImplementedError

    def _expected(self) -> Tensor:
        """Expectation of the masks [E], differentiable."""
        raise NotImplementedError

    def _sample(self) -> Tensor:
        """The masks [E] of this step, differentiable."""
        raise NotImplementedError

    def _values_keeping(
        self, operator: int, elements: int, order: Tensor
    ) -> Tensor:
        """Values of one operator that keep its first ``elements``."""
        raise NotImplementedError

    def _noise(self, uniform: Tensor) -> Tensor:
        """Noise [L] made of uniform numbers in (0, 1)."""
        return torch.zeros_like(uniform)

    # helpers

    def _values(self) -> Tensor:
        """Learned values [L], those of held operators constant."""
        held = self.held[self.learned_owner] > 0
        values = self._bounded(self.learned)
        return torch.where(held, self.held_learned, values)

    @torch.no_grad()
    def _resample(self) -> None:
        """New noise: of the seed and the step, so equal on all ranks."""
        seed = self.seed * 1_000_003 + int(self.num_updates)
        generator = torch.Generator().manual_seed(seed)
        shape = self.noise.shape
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
        noise = self._noise(uniform.clamp(1e-9, 1 - 1e-9))
        self.noise.copy_(noise)

    def _top(self, number: Tensor) -> Tensor:
        """Whether elements are among the first ``number`` [U], bool [E]."""
        from_top = self.layout.count - 1 - self._order()
        return from_top < self.layout.to_elements(number)
