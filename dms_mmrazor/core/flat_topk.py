"""All top-k operators of a network over one flat buffer."""

from typing import (
    Any,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import torch
from torch import Tensor, nn

from .importance import METRICS, check_metric
from .layout import FlatLayout, SegmentRanks
from .operators import (
    check_index,
    check_leaders,
    describe_operators,
    elements_for,
)
from .precision import KeepsPrecision
from .resource import ROUND_UP

__all__ = ['FlatTopk']


class FlatTopk(KeepsPrecision):
    """Many differentiable top-k operators, evaluated together.

    Gives for every operator what
    :func:`~dms_mmrazor.core.differentiable_topk` gives, in a number of
    tensor operations that does not depend on the number of operators, and
    without synchronization with the host (unless said otherwise): call
    :meth:`soft_mask` once per step and :meth:`split` it. Ranks do not fit
    into half precision: converting a model to it leaves this module alone.

    Shapes: U operators, C channels, E elements (steps of channels that
    share one importance and mask, appendix A.1.1; with steps of 1, E = C).

    Attributes:
        pruning_ratio (nn.Parameter): Portion of the elements to prune,
            shape [U], zeros at the start. Call :meth:`project_` after each
            optimizer step.
        importance (Tensor): Importances, shape [E], zeros at the start.
        num_updates (Tensor): Counted importance updates, int64 scalar.
        held (Tensor): How far the masks of held operators are from soft (0)
            to hard (1); 0 for operators that are not held, shape [U].
        held_ratio (Tensor): Pruning ratios they are held at, shape [U].
        held_kept (Tensor): Channels that held ones keep, int64, shape [U].
        operators (tuple[Operator, ...]): Sizes, steps and limits.

    Args:
        sizes (Sequence[int]): Channels of each operator, each >= 1.
        temperatures (Sequence[float | None], optional): Temperature of
            each soft mask, > 0. Defaults to None, the number of elements.
        steps (Sequence[int], optional): Channels of an element, >= 1; the
            last element of an operator may be smaller. Defaults to None,
            1 for all.
        min_kept (Sequence[int], optional): Fewest channels to keep,
            rounded up to whole elements; 0 allows to prune all. Defaults
            to None, 1 for all.
        max_kept (Sequence[int], optional): Most channels to keep, rounded
            down to whole elements. Defaults to None, ``sizes``.
        leaders (Mapping[int, int], optional): Operators that follow
            another: they keep (1 - a) (1 - a') of their elements, a' the
            other's ratio. Ratios, limits and numbers of kept channels stay
            their own, those beside a leader that keeps everything; masks
            show the product. Defaults to None.

    Raises:
        ValueError: If a setting is outside its range, or a leader follows
            itself.
    """

    step_settings: Mapping[str, Any] = {}
    """Arguments of :class:`StructureStep` unless others are given."""

    importance: Tensor
    num_updates: Tensor
    held: Tensor
    held_ratio: Tensor
    held_kept: Tensor

    def __init__(
        self,
        sizes: Sequence[int],
        temperatures: Optional[Sequence[Optional[float]]] = None,
        steps: Optional[Sequence[int]] = None,
        min_kept: Optional[Sequence[int]] = None,
        max_kept: Optional[Sequence[int]] = None,
        leaders: Optional[Mapping[int, int]] = None,
    ) -> None:
        super().__init__()
        self.operators = describe_operators(
            sizes, temperatures, steps, min_kept, max_kept
        )
        self.sizes = tuple(operator.size for operator in self.operators)
        self.layout = FlatLayout(self.operators)
        counts = [operator.num_elements for operator in self.operators]
        number = len(counts)
        self.rank = SegmentRanks(counts)
        self.pruning_ratio = nn.Parameter(torch.zeros(number))
        state = {
            'importance': torch.zeros(sum(counts)),
            'num_updates': torch.tensor(0),
            'held': torch.zeros(number),
            'held_ratio': torch.zeros(number),
            'held_kept': torch.zeros(number, dtype=torch.long),
        }
        for name, value in state.items():
            self.register_buffer(name, value)
        self.leaders = check_leaders(leaders or {}, number)
        leader = [self.leaders.get(index, index) for index in range(number)]
        self.register_buffer('leader', torch.tensor(leader), persistent=False)

    def soft_mask(self) -> Tensor:
        """Soft masks of all channels (Eq. 3).

        Returns:
            Tensor: Masks, shape [C], differentiable in ``pruning_ratio``.
            All ones before the first importance update, when there is no
            ground to prefer any element. Held operators give constants:
            their hard mask, or what :meth:`harden_` sets.
        """
        # At 1/2, where the paper cuts: holding changes no export.
        soft = self._element_mask()
        hard = (soft.detach() >= 0.5).to(soft.dtype)
        soft = torch.where(self.num_updates > 0, soft, torch.ones_like(soft))
        held = self.layout.to_elements(self.held)
        return self.layout.to_channels(torch.lerp(soft, hard, held))

    def expected_mask(self, shown: Optional[Tensor] = None) -> Tensor:
        """What a resource model sees of the masks: the soft ones.

        Args:
            shown (Tensor, optional): Soft masks [C] of this step, if they
                are known already. Defaults to None.

        Returns:
            Tensor: Masks, shape [C].
        """
        return self.soft_mask() if shown is None else shown

    @torch.no_grad()
    def hard_mask(self) -> Tensor:
        """Hard masks of all channels, what would be kept if exported now.

        Follows the pruning ratios from the start on, also before the first
        importance update.

        Returns:
            Tensor: Soft masks of Eq. 3 that are >= 1/2, bool, shape [C].
        """
        return self.layout.to_channels(self._element_mask() >= 0.5)

    def split(self, mask: Tensor) -> Tuple[Tensor, ...]:
        """Split a flat tensor into one view per operator.

        Args:
            mask (Tensor): Any values of all channels, shape [C].

        Returns:
            tuple[Tensor, ...]: U views, shape [sizes[u]] each.
        """
        return torch.split(mask, list(self.sizes))

    def kept(self) -> Tensor:
        """Continuous numbers of kept channels ``(1 - a) * size``.

        Returns:
            Tensor: Numbers, shape [U], differentiable in
            ``pruning_ratio``. Held operators give constants.
        """
        soft = (1 - self._limited_ratio()) * self.layout.size
        return torch.lerp(soft, self.held_kept.to(soft.dtype), self.held)

    @torch.no_grad()
    def hard_kept(self) -> Tensor:
        """Exact numbers of channels in the hard masks.

        Returns:
            Tensor: Numbers, int64, shape [U].
        """
        kept = self._element_mask(self._limited_ratio()) >= 0.5
        return self.layout.sum_elements(self.layout.width * kept)

    @torch.no_grad()
    def project_(self) -> None:
        """Bring the pruning ratios back into their limits, in place.

        The limits follow from ``min_kept`` and ``max_kept``: by default
        [0, 1 - 1/N] (appendix A.1.1). Held operators return to the ratio
        they are held at.
        """
        self.pruning_ratio.copy_(self._limited_ratio())

    def set_progress_(self, progress: float) -> None:
        """Tell the progress of a search in [0, 1], for a temperature."""

    def learnable(self) -> List[nn.Parameter]:
        """What a structure step moves: the pruning ratios."""
        return [self.pruning_ratio]

    def limits(self) -> Tuple[Tensor, Tensor]:
        """Lower and upper limits of the pruning ratios, each [U].

        Those of held operators are the ratio that they are held at.
        """
        free = self.held == 0
        return (
            torch.where(free, self.layout.lower, self.held_ratio),
            torch.where(free, self.layout.upper, self.held_ratio),
        )

    @torch.no_grad()
    def hold_(self, operators: Union[Tensor, Sequence[int]]) -> None:
        """Freeze operators at their present hard masks.

        They get no gradient and nothing of them changes. Synchronizes.

        Args:
            operators (Tensor | Sequence[int]): Indices of operators to
                hold, in addition to those held already.

        Raises:
            ValueError: If an index does not name an operator.
        """
        index = torch.as_tensor(operators, device=self.held.device)
        for operator in index.tolist():
            check_index(operator, len(self.sizes))
        index = index.long()  # an empty list gives floats
        self.held_ratio[index] = self._limited_ratio()[index]
        self.held_kept[index] = self.hard_kept()[index]
        self.pruning_ratio[index] = self.held_ratio[index]
        self.held[index] = 1

    @torch.no_grad()
    def harden_(self, portion: float) -> None:
        """Set how far held masks are from soft (0) to hard, in (0, 1]."""
        self.held.copy_((self.held > 0) * portion)

    @torch.no_grad()
    def release_(self) -> None:
        """Let all held operators take part in the search again."""
        self.held.zero_()

    @torch.no_grad()
    def set_kept_(self, operator: int, kept: int) -> None:
        """Set a pruning ratio so that exactly ``kept`` channels are kept.

        Works on a held operator too. Synchronizes with the host.

        Args:
            operator (int): Index of the operator.
            kept (int): Channels to keep; with a step, a sum of elements
                that are the most important ones at present.

        Raises:
            ValueError: If no pruning ratio gives that number.
        """
        check_index(operator, len(self.sizes))
        space = self.operators[operator]
        mine = self.layout.owner == operator
        scores = self.importance[mine]
        # Descending and stable, as the ranks of all operators.
        order = torch.sort(scores, descending=True, stable=True).indices
        widths = self.layout.width[mine][order].tolist()
        elements = elements_for(operator, space, kept, widths)
        ratio = 1 - elements / space.num_elements
        self.pruning_ratio[operator] = ratio
        self.held_ratio[operator] = ratio
        self.held_kept[operator] = kept

    @torch.no_grad()
    def update_importance_(
        self,
        mask: Tensor,
        grad: Tensor,
        metric: str = 'taylor',
        decay: float = 0.99,
    ) -> None:
        """Moving average of the importance scores (Eq. 4).

        ``c <- decay * c + (1 - decay) * score``. If anything is not finite
        (an overflow under AMP), nothing changes and the update does not
        count. The importance of held operators does not change.

        Args:
            mask (Tensor): Soft masks of the step, shape [C].
            grad (Tensor): Gradient of the task loss alone with respect to
                the masks, unscaled and summed over all consumers of a
                mask, shape [C].
            metric (str): One of :data:`METRICS`; 'index' and 'l1' are
                set by :meth:`set_importance_` and only count the update.
                Defaults to 'taylor'.
            decay (float): In [0, 1); 0 for no average. Defaults to 0.99.

        Raises:
            ValueError: If an argument is outside its range.
        """
        check_metric(metric)
        if not 0 <= decay < 1:
            raise ValueError(f'decay must be in [0, 1), but got {decay}.')
        # An element's channels share one mask: its gradient is their sum.
        grad = self.layout.sum_channels(grad.to(self.importance.dtype))
        finite = torch.isfinite(grad).all()
        if metric in METRICS:
            mask = self.layout.pick_channels(mask.to(grad.dtype))
            score = METRICS[metric](mask, grad)
            finite = finite & torch.isfinite(score).all()
            average = decay * self.importance + (1 - decay) * score
            self._assign_importance(average, finite)
        # Added as a tensor: a look at it would wait for the GPU.
        self.num_updates += finite

    @torch.no_grad()
    def set_importance_(self, importance: Tensor, check: bool = True) -> None:
        """Set the importance directly, for static metrics.

        Args:
            importance (Tensor): Scores of the channels, shape [C]; an
                element gets the sum over its channels. Held operators
                keep theirs.
            check (bool): Raise if a score is not finite, which
                synchronizes with the host; otherwise nothing changes then.
                Defaults to True.

        Raises:
            ValueError: If the shape is wrong or a score is not finite.
        """
        scores = self.layout.sum_channels(importance.to(self.importance.dtype))
        finite = torch.isfinite(scores).all()
        if check and not finite:
            raise ValueError(
                'importance has scores that are not finite; check the '
                'weights they come from.'
            )
        self._assign_importance(scores, finite)

    def extra_repr(self) -> str:
        """Numbers of operators and channels, for printing a model."""
        return f'operators={len(self.sizes)}, channels={sum(self.sizes)}'

    def _limited_ratio(self) -> Tensor:
        limits = self.layout.lower, self.layout.upper
        ratio = torch.clamp(self.pruning_ratio, *limits)
        return torch.where(self.held > 0, self.held_ratio, ratio)

    def _actual_ratio(self) -> Tensor:
        """Ratios [U] of the masks, those of followers with their leader's.

        A follower keeps an element at least, and halves of an element.
        """
        own = self._limited_ratio()
        if not self.leaders:
            return own
        both = 1 - (1 - own) * (1 - own.index_select(0, self.leader))
        counts = [operator.num_elements for operator in self.operators]
        most = 1 - 1 / torch.tensor(counts).to(own)
        both = torch.minimum(both - ROUND_UP, most)
        alone = self.leader == torch.arange(len(own), device=own.device)
        return torch.where(alone, own, both)

    def _element_mask(self, ratio: Optional[Tensor] = None) -> Tensor:
        """Eq. 2 and 3 for all elements, shape [E]."""
        ratio = self._actual_ratio() if ratio is None else ratio
        ratio = self.layout.to_elements(ratio)
        rank = self.rank(self.importance).to(ratio.dtype)
        normalized = (rank + 0.5) / self.layout.count
        return torch.sigmoid(self.layout.temperature * (normalized - ratio))

    def _assign_importance(self, values: Tensor, valid: Tensor) -> None:
        """Overwrite the importance where ``valid`` and not held."""
        valid = valid & self.layout.to_elements(self.held == 0)
        new = torch.where(valid, values, self.importance)
        self.importance.copy_(new)
