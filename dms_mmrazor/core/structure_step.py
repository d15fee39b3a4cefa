"""How a structure moves: one step of all pruning ratios at once.

Every unit has a task gradient g_u = ∂L_task/∂a_u and, for every constrained
resource, a gradient c_u = ∂log r/∂a_u <= 0, its share of the resource. Three
rules make a step of them:

- ``plain`` (section A.3.5): a ← a − lr · (g + λ_r · c) while r is above its
  target. The ratio of a unit moves in proportion to its share: within some
  hundred steps stream widths and depths pay for everything.
- ``adam``: the same gradient, normalized by its own size for each unit.
- ``price``: at the best structure of a given resource all units have the same
  price p_u = g_u / |c_u|, the task loss that one unit of log-resource saves.
  A ratio moves against what its price is above the mean, and all ratios move
  by one common amount that brings the resource to its target. It is a
  projected gradient descent whose metric is the share, so one learning rate
  serves networks of any size and any scale of the task loss.
"""

from typing import NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

__all__ = ['RULES', 'Constraint', 'StructureStep']

Limits = Tuple[Tensor, Tensor]

RULES = ('price', 'adam', 'plain')
"""Known rules; the first one is the default."""

_RATES = {'adam': 2e-3, 'plain': 5e-3}
"""Learning rates of rules that do not derive theirs from the length."""

_AVERAGES = {'price': 0.9, 'adam': 0.9, 'plain': 0.0}

_TRAVEL = 4.0
"""Twice what a unit of twice the usual price could move in one search."""

_SLOWEST, _FASTEST = 5e-4, 2e-2
"""Limits of the learning rate that follows from the length of a search."""

_LEAST_RATE = 0.02
"""What is left of the learning rate of ``price`` at the end of a search."""

_LARGEST_SHIFT = 0.02
"""Most that one step moves all ratios towards a target in a long search."""

_WHOLE_SHIFT = 4.0
"""Over a whole search ratios can move together by at least this."""

_DEAREST = 3.0
"""Prices beyond so many times the usual one count as that."""

_LEAST_SHARE = 1e-3
"""Shares of a resource below this part of the largest count as that."""

_SCALE_DECAY = 0.99
_PRICE_DECAY = 0.99
"""Of the averages that the end of a search goes by."""

_SQUARES_DECAY = 0.999
_SWEEPS = 4
"""Rounds in which several constraints find their common step."""


class Constraint(NamedTuple):
    """The K constrained resources at one moment.

    Attributes:
        grad (Tensor): ∂log r_k/∂a_u, shape [K, U].
        excess (Tensor): log(r_k / r_t) against the present target, shape
            [K]; -inf without a target.
        weight (Tensor): Weights λ_r, shape [K].
    """

    grad: Tensor
    excess: Tensor
    weight: Tensor


class StructureStep(nn.Module):
    """One step of all pruning ratios by one of :data:`RULES`.

    A handful of tensor operations for any number of units, without
    synchronization. The state is in buffers, so that a checkpoint has it.

    Attributes:
        lr (float): Learning rate at the start; 0 until it is known.
        follows_length (bool): Whether it is derived from the length of the
            search.

    Args:
        number (int): Number U of ratios (or of other learnable numbers).
        rule (str): 'price', 'adam' or 'plain'. Defaults to 'price'.
        lr (float, optional): Learning rate. Of ``price``: what a ratio of
            twice the usual price moves more than a usual one in a step.
            Defaults to None: 2e-3 for ``adam``, 5e-3 for ``plain`` (Table
            15: 5e-2 … 5e-5), and for ``price`` 4 / iterations of the
            search, between 5e-4 and 2e-2. That of ``price`` decays linearly
            to nearly nothing over the search, so that noise averages out.
        average (float, optional): Decay in [0, 1) of the moving average of
            the task's gradient (with ``adam`` of the whole one). Defaults
            to None: 0.9, and 0 for ``plain``.

    Raises:
        ValueError: If an argument is outside its range.
    """

    mean: Tensor
    square: Tensor
    count: Tensor
    share: Tensor
    history: Tensor

    def __init__(
        self,
        number: int,
        rule: str = 'price',
        lr: Optional[float] = None,
        average: Optional[float] = None,
    ) -> None:
        super().__init__()
        if rule not in RULES:
            raise ValueError(f'rule must be one of {RULES}, got {rule!r}.')
        if lr is not None and not (_is_number(lr) and 0 < lr < float('inf')):
            raise ValueError(f'lr must be a positive number, got {lr!r}.')
        average = _AVERAGES[rule] if average is None else average
        if not (_is_number(average) and 0 <= average < 1):
            raise ValueError(f'average must be in [0, 1), got {average!r}.')
        self.rule = rule
        self.average = average
        self.lr = lr or _RATES.get(rule, 0.0)
        self.follows_length = not self.lr
        self._length = 0
        # Of `price` the scale of all prices, of `adam` the squares.
        squares = torch.zeros(number if rule == 'adam' else 1)
        self.register_buffer('mean', torch.zeros(number))
        self.register_buffer('square', squares)
        self.register_buffer('count', torch.tensor(0))
        self.register_buffer('share', torch.zeros(number))
        # Slow averages of the task's gradients and of the shares.
        self.register_buffer('history', torch.zeros(2, number))

    def set_length(self, iterations: int) -> None:
        """Derive the learning rate, and how it decays, from the length.

        Args:
            iterations (int): Steps of the whole search, >= 1.
        """
        self._length = max(iterations, 1)
        if self.follows_length:
            wanted = _TRAVEL / self._length
            self.lr = min(max(wanted, _SLOWEST), _FASTEST)

    @torch.no_grad()
    def move_(
        self,
        ratio: Tensor,
        task: Tensor,
        constraint: Constraint,
        lower: Tensor,
        upper: Tensor,
    ) -> None:
        """Move the ratios in place; nothing changes if a number is not finite.

        Args:
            ratio (Tensor): Pruning ratios within their limits, shape [U].
            task (Tensor): Gradient of the task loss alone, unscaled, 0 for
                what is held, shape [U].
            constraint (Constraint): Of the same ratios.
            lower (Tensor): Lower limits; a held ratio's is the ratio, [U].
            upper (Tensor): Upper limits, shape [U].
        """
        grad = constraint.grad.to(ratio.dtype)
        constraint = Constraint(
            grad,
            constraint.excess.to(ratio.dtype),
            constraint.weight.to(ratio.dtype),
        )
        valid = torch.isfinite(task).all() & torch.isfinite(grad).all()
        # Undone by `where`, not by an `if`, which would wait for the GPU.
        before = [buffer.clone() for buffer in self.buffers()]
        self.count += 1
        self._note_share(constraint)
        self._note_history(task, lower < upper)
        limits = lower, upper
        new = getattr(self, f'_{self.rule}')(ratio, task, constraint, limits)
        new = torch.min(torch.max(new, lower), upper)
        valid = valid & torch.isfinite(new).all()
        ratio.copy_(torch.where(valid, new, ratio))
        for buffer, old in zip(self.buffers(), before):
            buffer.copy_(torch.where(valid, buffer, old))

    def prices(self) -> Tensor:
        """Averaged task loss per log-resource, shape [U].

        Differences between units say where pruning is cheap; 0 before the
        first step and for units that no constrained resource depends on.
        What is held has the price that it had before. The average is over
        some hundred steps, whatever the rule.
        """
        task, share = self.history
        price = task / share.clamp(min=torch.finfo(task.dtype).tiny)
        return torch.where(share > 0, price, torch.zeros_like(price))

    def extra_repr(self) -> str:
        """Rule and learning rate, for printing a model."""
        return f'rule={self.rule!r}, lr={self.lr:g}, average={self.average:g}'

    # rules

    def _plain(
        self,
        ratio: Tensor,
        task: Tensor,
        constraint: Constraint,
        limits: Limits,
    ) -> Tensor:
        """Section A.3.5."""
        self._average(task)
        grad = self.mean / self._correction(self.average)
        return ratio - self.lr * (grad + _pull(constraint))

    def _adam(
        self,
        ratio: Tensor,
        task: Tensor,
        constraint: Constraint,
        limits: Limits,
    ) -> Tensor:
        """The same, each ratio by its own usual gradient."""
        grad = task + _pull(constraint)
        self._average(grad)
        self.square.lerp_(grad.square(), 1 - _SQUARES_DECAY)
        mean = self.mean / self._correction(self.average)
        square = self.square / self._correction(_SQUARES_DECAY)
        return ratio - self.lr * mean / (square.sqrt() + 1e-8)

    def _price(
        self,
        ratio: Tensor,
        task: Tensor,
        constraint: Constraint,
        limits: Limits,
    ) -> Tensor:
        """Against the own price, and together to the target."""
        lower, upper = limits
        share = self.share
        self._average(task)
        tiny = torch.finfo(ratio.dtype).tiny
        usual = task.abs().sum() / share.sum().clamp(min=tiny)
        self.square.lerp_(usual, 1 - _SCALE_DECAY)
        scale = self.square / self._correction(_SCALE_DECAY)
        least = (_LEAST_SHARE * share.max()).clamp(min=tiny)
        price = self.mean / self._correction(self.average)
        price = price / torch.max(share, least) / scale.clamp(min=tiny)
        price = price.clamp(-_DEAREST, _DEAREST)
        # Against the mean price, which is what the common move gives back:
        # to first order the resource stays where it is.
        common = (share * price).sum() / share.sum().clamp(min=tiny)
        moved = ratio - self._rate() * (price - common)
        moved = torch.min(torch.max(moved, lower), upper)
        return moved + _towards_target(
            ratio, moved, constraint, share, limits, self._largest_shift()
        )

    def _rate(self) -> Tensor:
        """The learning rate of ``price`` at this step, a scalar."""
        done = self.count.to(self.mean.dtype) / max(self._length, 1)
        if not self._length:
            done = torch.zeros_like(done)
        return self.lr * (1 - done).clamp(min=_LEAST_RATE)

    def _largest_shift(self) -> float:
        """Most that one step of ``price`` moves all ratios together.

        A target that is far away is not jumped at, before anything is known
        of prices; but within a short search it has to be reached.
        """
        if not self._length:
            return _LARGEST_SHIFT
        return max(_LARGEST_SHIFT, min(_WHOLE_SHIFT / self._length, 1.0))

    def _average(self, grad: Tensor) -> None:
        self.mean.lerp_(grad, 1 - self.average)

    def _correction(self, decay: float) -> Tensor:
        """What a moving average that began at 0 is short of 1."""
        steps = self.count.clamp(min=1).to(self.mean.dtype)
        return 1 - decay**steps

    def _note_share(self, constraint: Constraint) -> None:
        """The units' shares of the resources, by weight, shape [U]."""
        weight = constraint.weight / constraint.weight.sum()
        self.share.copy_((weight[:, None] * constraint.grad.abs()).sum(0))

    def _note_history(self, task: Tensor, free: Tensor) -> None:
        """Average what prices consist of, for units that are not held."""
        new = torch.stack([task, self.share])
        mean = self.history.lerp(new, 1 - _PRICE_DECAY)
        self.history.copy_(torch.where(free, mean, self.history))


def _pull(constraint: Constraint) -> Tensor:
    """Gradient of the resource losses, λ_r · L_r (Eq. 7), shape [U]."""
    active = constraint.weight * (constraint.excess > 0)
    return (active[:, None] * constraint.grad).sum(0)


def _towards_target(
    ratio: Tensor,
    moved: Tensor,
    constraint: Constraint,
    share: Tensor,
    limits: Limits,
    largest: float,
) -> Tensor:
    """What brings log r to its target after a move, to first order.

    Above a target every unit gives the same log-resource per share; below
    all of them every unit gets as much, up to the nearest one, where Eq. 7
    would leave that to the task's gradient. Shape [U].
    """
    lower, upper = limits
    grad, tiny = constraint.grad, torch.finfo(ratio.dtype).tiny
    excess = constraint.excess + grad @ (moved - ratio)
    way = grad.abs() / share.clamp(min=tiny)
    shrinking = way * (moved < upper)
    effect = -(shrinking @ grad.t())  # of shift k on the logarithm of r_j
    shift = torch.zeros_like(excess)
    for _ in range(_SWEEPS if len(excess) > 1 else 1):
        for k in range(len(excess)):
            rest = excess[k] - shift @ effect[:, k] + shift[k] * effect[k, k]
            wanted = rest / effect[k, k].clamp(min=tiny)
            shift[k] = wanted.clamp(0, largest)
    growing = (moved > lower).to(ratio.dtype) * (share > 0)
    nearest = excess.argmax()
    effect = -(grad.index_select(0, nearest[None])[0] * growing).sum()
    growth = excess.max().clamp(max=0) / effect.clamp(min=tiny)
    growth = growth.clamp(min=-largest)
    return shift @ shrinking + growth * growing


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
