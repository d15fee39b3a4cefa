"""Other mask parametrizations to compare differentiable top-k with (Table 2).

They choose among the same elements under the same limits as
:class:`~dms_mmrazor.core.FlatTopk` and can stand in its place:
``model.mutator.method`` of a config names one.

| | learnable | what the layers see |
|---|---|---|
| :class:`MESMasks` | one logit per element | a Bernoulli sample of each |
| :class:`SNSMasks` | one logit per count | a mixture of first-k masks |
| :class:`GETMasks` | one threshold | the hard top-k |
| :class:`MinMaxMasks` | one ratio | Eq. 3 without Eq. 2 |

What is *searched* differs, not the weights, the schedule or the resource
model: the latter sees :meth:`LearnedMasks.kept` and, for blocks,
:meth:`LearnedMasks.expected_mask`.
"""

import math
from typing import Any, Tuple

import torch
from torch import Tensor

from dms_mmrazor.baselines.learned_masks import LearnedMasks
from dms_mmrazor.core import FlatTopk
from dms_mmrazor.core.operators import Operator

__all__ = ['MASKS', 'GETMasks', 'MESMasks', 'MinMaxMasks', 'SNSMasks']


class MinMaxMasks(FlatTopk):
    """Top-k on importances that are only scaled (Table 11).

    Eq. 2 is replaced by ``(c - min) / (max - min)`` of each operator. The
    resource and what is exported follow the pruning ratio as before; the
    soft masks no longer do, unless importances are spread evenly.

    Args:
        *args (Any): As :class:`FlatTopk`.
        **kwargs (Any): As :class:`FlatTopk`.
    """

    def soft_mask(self) -> Tensor:
        """Soft masks [C] of importances scaled to [0, 1]."""
        hard = (self._element_mask().detach() >= 0.5).to(self.importance)
        ratio = self.layout.to_elements(self._limited_ratio())
        soft = torch.sigmoid(
            self.layout.temperature * (self._scaled() - ratio)
        )
        soft = torch.where(self.num_updates > 0, soft, torch.ones_like(soft))
        held = self.layout.to_elements(self.held)
        return self.layout.to_channels(torch.lerp(soft, hard, held))

    @torch.no_grad()
    def _scaled(self) -> Tensor:
        """Importances [E] between the least and largest of their operator."""
        rank = self.rank(self.importance)
        first = self.importance[rank == 0]  # one of each operator, in order
        last = self.importance[rank == self.layout.count - 1]
        low, high = map(self.layout.to_elements, (first, last))
        tiny = torch.finfo(self.importance.dtype).tiny
        return (self.importance - low) / (high - low).clamp(min=tiny)


class MESMasks(LearnedMasks):
    """One gate per element (Herrmann 2020, "MES" in Table 2).

    ``m = 1[sigmoid((alpha + logistic noise) / tau) > 1/2]``, its gradient
    that of the sigmoid. Kept are elements with ``alpha > 0``, within the
    limits of the operator.

    Args:
        *args (Any): As :class:`FlatTopk`.
        start (float): alpha at the start. Defaults to 3: 95 % are kept.
        tau (float): Temperature, > 0. Defaults to 1.
        **kwargs (Any): As :class:`LearnedMasks`.
    """

    def __init__(
        self, *args: Any, start: float = 3.0, tau: float = 1.0, **kwargs: Any
    ) -> None:
        self.start = start
        self.tau = tau
        super().__init__(*args, **kwargs)

    def _start(self) -> Tuple[Tensor, Tensor]:
        values = torch.full_like(self.importance, self.start)
        return values, self.layout.owner.clone()

    def _bounded(self, values: Tensor) -> Tensor:
        return values.clamp(-10, 10)  # beyond, the sigmoid is flat

    def _order(self) -> Tensor:
        return self.rank(self._values().detach())

    def _hard(self) -> Tensor:
        kept = (self._values().detach() > 0) | self._top(self.fewest)
        return kept & self._top(self.most)

    def _expected(self) -> Tensor:
        return torch.sigmoid(self._values())

    def _sample(self) -> Tensor:
        soft = torch.sigmoid((self._values() + self.noise) / self.tau)
        hard = (soft.detach() > 0.5).to(soft.dtype)
        return hard + soft - soft.detach()

    def _noise(self, uniform: Tensor) -> Tensor:
        return torch.log(uniform) - torch.log1p(-uniform)

    def _values_keeping(
        self, operator: int, elements: int, order: Tensor
    ) -> Tensor:
        values = self.learned[self.learned_owner == operator].clone()
        size = values.abs().clamp(min=1e-3)
        values[order[:elements]] = size[order[:elements]]
        values[order[elements:]] = -size[order[elements:]]
        return values


class SNSMasks(LearnedMasks):
    """One gate per count ("SNS" in Table 2; FBNetV2's masks).

    Of each operator, ``g = GumbelSoftmax(alpha, tau)`` over the counts from
    its fewest to its most elements; the mask is the mixture of the first-k
    masks. Elements count in index order: importances play no part.

    Args:
        *args (Any): As :class:`FlatTopk`.
        start (float): Logit of the largest count at the start, the others'
            are 0 at the smallest and linear between. Defaults to 3.
        taus (tuple[float, float]): Temperature at the start and the end of
            a search, exponential between. Defaults to (5, 0.09), FBNetV2's
            5 · 0.956^epoch after 90 epochs.
        **kwargs (Any): As :class:`LearnedMasks`.
    """

    def __init__(
        self,
        *args: Any,
        start: float = 3.0,
        taus: Tuple[float, float] = (5.0, 0.09),
        **kwargs: Any,
    ) -> None:
        self.start = start
        self.taus = taus
        self.tau = taus[0]
        super().__init__(*args, **kwargs)

    def set_progress_(self, progress: float) -> None:
        """Set the temperature of this part of the search."""
        first, last = self.taus
        self.tau = first ** (1 - progress) * last**progress

    def _start(self) -> Tuple[Tensor, Tensor]:
        numbers = [op.most - op.fewest + 1 for op in self.operators]
        counts = [
            torch.arange(op.fewest, op.most + 1) for op in self.operators
        ]
        owner = torch.arange(len(numbers))
        owner = owner.repeat_interleave(torch.tensor(numbers))
        count = torch.cat(counts)
        self.register_buffer('option', count, persistent=False)
        values = [
            self.start * torch.linspace(0, 1, number)
            if number > 1
            else torch.zeros(1)
            for number in numbers
        ]
        return torch.cat(values), owner

    def _order(self) -> Tensor:
        return self.rank(torch.zeros_like(self.importance))

    def _table(self, values: Tensor, fill: float) -> Tensor:
        """Options [L] as rows of counts [U, most + 1]."""
        columns = max(op.num_elements for op in self.operators) + 1
        table = values.new_full((len(self.operators), columns), fill)
        return table.index_put((self.learned_owner, self.option), values)

    def _mixed(self, weights: Tensor) -> Tensor:
        """Masks [E] of weights [U, counts]: those of larger counts."""
        at_least = weights.flip(1).cumsum(1).flip(1)
        place = self.layout.count - 1 - self._order()
        return at_least[self.layout.owner, place + 1]

    def _hard(self) -> Tensor:
        values = self._table(self._values().detach(), -float('inf'))
        return self._top(values.argmax(1))

    def _sample(self) -> Tensor:
        values = (self._values() + self.noise) / self.tau
        return self._mixed(self._table(values, -float('inf')).softmax(1))

    def _expected(self) -> Tensor:
        return self._sample()

    def _noise(self, uniform: Tensor) -> Tensor:
        return -torch.log(-torch.log(uniform))

    def _values_keeping(
        self, operator: int, elements: int, order: Tensor
    ) -> Tensor:
        mine = self.learned_owner == operator
        values = self.learned[mine].clone()
        values[self.option[mine] == elements] = values.max() + 1
        return values


class _Threshold(torch.autograd.Function):
    """Hard masks with LEAP's gradient: ``dL/dt = sum_i M_i dL/dM_i``."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, shown: Tensor, hard: Tensor, owner: Tensor
    ) -> Tensor:
        ctx.save_for_backward(hard, owner)
        ctx.number = len(values)
        return shown.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Any, ...]:
        hard, owner = ctx.saved_tensors
        sums = grad.new_zeros(ctx.number)
        return sums.index_add_(0, owner, hard * grad), None, None, None


class GETMasks(LearnedMasks):
    """One threshold per operator ("GET" in Table 2; LEAP, Yao 2021).

    The hard top ``ceil(sigmoid(t) N)`` by importance. The gradient of t
    leaves out the derivative of the sigmoid, for masks and, so that
    anything moves at all, for the expected number of channels.

    Args:
        *args (Any): As :class:`FlatTopk`.
        start (float): t at the start, also its limit. Defaults to 10: all
            are kept.
        **kwargs (Any): As :class:`LearnedMasks`.
    """

    _ROUND = 1e-3
    """So much of an element does not count as one: sigmoid(t) < 1."""

    def __init__(self, *args: Any, start: float = 10.0, **kwargs: Any) -> None:
        self.start = start
        super().__init__(*args, **kwargs)

    def _start(self) -> Tuple[Tensor, Tensor]:
        rows = [
            (self._threshold(op.fewest, op), self._threshold(op.most, op))
            for op in self.operators
        ]
        lower, upper = torch.tensor(rows).unbind(1)
        self.register_buffer('low', lower.clone(), persistent=False)
        self.register_buffer('high', upper.clone(), persistent=False)
        return upper.clone(), torch.arange(len(rows))

    def _threshold(self, elements: int, operator: Operator) -> float:
        """The t that keeps so many elements."""
        limit = 1 / (1 + math.exp(self.start))
        portion = elements / operator.num_elements
        portion = min(max(portion, limit), 1 - limit)
        return math.log(portion / (1 - portion))

    def _bounded(self, values: Tensor) -> Tensor:
        return torch.clamp(values, self.low, self.high)

    def _order(self) -> Tensor:
        return self.rank(self.importance)

    def _portion(self) -> Tensor:
        """sigmoid(t) N, [U]."""
        counts = [float(op.num_elements) for op in self.operators]
        counts = self.held.new_tensor(counts)
        return torch.sigmoid(self._values().detach()) * counts

    def _hard(self) -> Tensor:
        number = torch.ceil(self._portion() - self._ROUND)
        return self._top(number)

    def _expected(self) -> Tensor:
        """The top ``sigmoid(t) N``, the last one in part."""
        from_top = self.layout.count - 1 - self._order()
        portion = self.layout.to_elements(self._portion())
        return self._get((portion - from_top).clamp(0, 1))

    def _sample(self) -> Tensor:
        hard = self._get(self._hard().to(self.importance.dtype))
        return torch.where(self.num_updates > 0, hard, torch.ones_like(hard))

    def _get(self, shown: Tensor) -> Tensor:
        hard = self._hard().to(shown.dtype)
        owner = self.layout.owner  # one threshold each
        return _Threshold.apply(self._values(), shown, hard, owner)

    def _values_keeping(
        self, operator: int, elements: int, order: Tensor
    ) -> Tensor:
        threshold = self._threshold(elements, self.operators[operator])
        return self.learned.new_tensor([threshold])


MASKS = {
    'mes': MESMasks,
    'sns': SNSMasks,
    'get': GETMasks,
    'minmax': MinMaxMasks,
}
"""By the name of the method, as configs have it."""
