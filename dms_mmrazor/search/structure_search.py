"""Constraints of a search, and the step that its structure takes."""

from typing import (
    Any,
    Dict,
    List,
    Mapping,
    Optional,
    Protocol,
    Tuple,
)

import torch
from torch import Tensor, nn

from dms_mmrazor.core import (
    METRICS,
    SIGNED_METRICS,
    Constraint,
    StructureStep,
    resource_loss,
)
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.search.redundancy import Redundancy

SIGNALS = ('gradient', 'importance', 'removal')
"""What the task can say of a ratio; the first one is the default."""


class Searched(Protocol):
    """A supernet that is searched, whoever trains it.

    Attributes:
        architecture (nn.Module): The supernet.
        mutator (DMSMutator): Its units.
        structure (StructureSearch): What moves them.
    """

    architecture: nn.Module
    mutator: DMSMutator
    structure: 'StructureSearch'


class StructureSearch(nn.Module):
    """What moves the structure of a prepared supernet.

    In each iteration: :meth:`set_targets`, a forward pass of the supernet
    after :meth:`begin`, a backward pass of the task loss, and
    :meth:`finish`. The resource losses never enter a backward pass: their
    gradients are known without one, so that the gradient of the masks is
    the task's alone, which importances and prices need (Eq. 4).

    Attributes:
        step (StructureStep): The rule by which ratios move, and its state.
        kinds (list[str]): Constrained resources.
        targets (Tensor): Their present targets, absolute, inf for none,
            float64, shape [K].
        weights (Tensor): Weights λ_r, float64, shape [K].

    Args:
        mutator (DMSMutator): Of a prepared supernet; registered elsewhere.
        settings (dict, optional): Arguments of :class:`StructureStep`, and
            ``signal``, what the task says of a ratio: 'gradient' (Eq. 5),
            'importance', the importances of the elements that are about
            to go, or 'removal', the part of those that other elements
            cannot replace, see :meth:`task`. Defaults to None, their
            defaults.
        supernet (nn.Module, optional): Whose layers 'removal' watches.
            Defaults to None.

    Attributes:
        redundancy (Redundancy, optional): What 'removal' measures.

    Raises:
        DMSError: If a setting is unknown or outside its range.
    """

    targets: Tensor
    weights: Tensor

    def __init__(
        self,
        mutator: DMSMutator,
        settings: Optional[Mapping[str, Any]] = None,
        supernet: Optional[nn.Module] = None,
    ) -> None:
        super().__init__()
        # In a tuple: the mutator is registered once, by whoever made it.
        self._mutator = (mutator,)
        settings = _checked_settings(settings)
        self.signal = _checked_signal(mutator, settings.pop('signal', None))
        self.step = _build_step(mutator, settings)
        self.redundancy: Optional[Redundancy] = None
        if self.signal == 'removal':
            if supernet is None:
                raise ValueError("signal='removal' watches the supernet.")
            number = len(mutator.masks.mask)
            stages = mutator.depth_units
            self.redundancy = Redundancy(supernet, number, stages)
        self.kinds: List[str] = []
        self._current: Dict[str, Tensor] = {}
        for name in ('targets', 'weights'):
            self.register_buffer(name, _doubles([]), persistent=False)

    def set_constraints(self, weights: Mapping[str, float]) -> None:
        """Choose the constrained resources.

        Args:
            weights (Mapping[str, float]): Resource kind → weight λ_r of its
                loss. With the rule ``price`` a single one has no influence;
                of several they weigh the shares.
        """
        self.kinds = list(weights)
        device = self._topk.importance.device
        self.weights = _doubles(list(weights.values())).to(device)
        self.targets = torch.full_like(self.weights, float('inf'))

    def set_targets(self, targets: Mapping[str, float]) -> None:
        """Set the target r_t of each constraint for the next steps."""
        for index, kind in enumerate(self.kinds):
            self.targets[index].fill_(targets[kind])

    def begin(self) -> None:
        """Show the layers the soft masks of this step (training)."""
        mutator = self._mutator[0]
        if self.redundancy is not None:
            self.redundancy.begin()
        mutator.masks.use_soft_masks()
        masks = mutator.masks
        with torch.enable_grad():
            blocks = masks.soft_blocks(masks.table.soft)
            self._current = {
                kind: mutator.table.soft(kind, blocks) for kind in self.kinds
            }

    def losses(self) -> Dict[str, Tensor]:
        """λ_r · L_r of every constraint (Eq. 7), and what it compares.

        Values without a gradient, for the log: :meth:`finish` adds the
        gradient.

        Returns:
            dict[str, Tensor]: ``loss_{kind}``, and ``{kind}_ratio`` and
            ``{kind}_target`` relative to the supernet.
        """
        losses = {}
        full = self._mutator[0].table.full
        for index, (kind, current) in enumerate(self._current.items()):
            current, target = current.detach(), self.targets[index]
            loss = self.weights[index] * resource_loss(current, target)
            losses[f'loss_{kind}'] = loss.float()
            losses[f'{kind}_ratio'] = (current / full[kind]).float()
            losses[f'{kind}_target'] = (
                (target / full[kind]).clamp(max=1).float()
            )
        return losses

    def finish(self, grad_scale: Optional[Tensor] = None) -> None:
        """Move importances and structure; call after each optimizer step.

        Nothing changes if a gradient is not finite. One collective on
        several ranks, after which all have the state of the first one.

        Args:
            grad_scale (Tensor, optional): Loss scale under AMP, NaN where
                the step of the weights was skipped. Defaults to None.

        Raises:
            DMSError: If no training forward pass precedes.
        """
        mutator = self._mutator[0]
        masks, topk = mutator.masks, self._topk
        grad = masks.take_gradient(grad_scale)
        # All that needs the graph of this step, before state is written.
        task = self.task(grad)
        constraint = self._constraint() if self.kinds else None
        if self.redundancy is not None:
            # For the next steps: all ranks then have that of the first one.
            self.redundancy.finish(topk)
        of_step = () if constraint is None else constraint[:2]
        masks.reduce([grad, task], [*of_step, *self._state()])
        masks.update_importance(grad, mutator.static_scores())
        if constraint is not None:
            (learnable,) = topk.learnable()
            self.step.move_(learnable, task, constraint, *topk.limits())
        topk.project_()
        self._current = {}

    def prices(self) -> Optional[Tensor]:
        """Task loss per log-resource of all units and stages, shape [U].

        None if nothing has moved yet, or what is learned is not a pruning
        ratio for each of them.
        """
        (learnable,) = self._topk.learnable()
        if learnable is not self._topk.pruning_ratio or not self.step.count:
            return None
        return self.step.prices()

    def shares(self) -> Tensor:
        """Shares of the resources in this step, after :meth:`begin`, [U]."""
        return self._constraint().grad.abs().mean(0).float()

    def agree(self) -> None:
        """Give all ranks the state of the first one, before a decision.

        Sums on a GPU may differ in their last bit between ranks; what
        follows from them must not.
        """
        self._mutator[0].masks.broadcast(self._state())

    def task(self, grad: Tensor, signal: Optional[str] = None) -> Tensor:
        """What the task says of the ratios, shape [U].

        The network depends on products of masks and weights alone, so that
        ``m · ∂L/∂m`` is ``w · ∂L/∂w`` summed over the weights that read a
        channel: where weights have adapted to soft masks, the gradient of a
        ratio is no more than the balance of weight decay and of the
        optimizer's noise. The loss of removing an
        element is then of second order, ``½ m² ∂²L/∂m²``, which is what the
        Taylor importances (Eq. 4) estimate up to one factor for all, with
        little noise. ``signal='importance'`` puts them in the gradient's
        place.

        Weights are trained again without what was removed, and layers that
        have read it restore of it what the other channels give.
        ``signal='removal'`` counts the portion that they cannot, see
        :class:`Redundancy`.

        Args:
            grad (Tensor): Task's gradient of the masks, shape [C].
            signal (str, optional): One of :data:`SIGNALS`. Defaults to
                None, that of the search.
        """
        masks = self._mutator[0].masks
        if (signal or self.signal) == 'gradient':
            return masks.ratio_gradient(grad)
        topk = masks.topk
        started = 1 - masks.decay ** topk.num_updates.clamp(min=1)
        removal = topk.layout.to_channels(topk.importance / started)
        if (signal or self.signal) == 'removal':
            removal = removal * self.redundancy.portion
        # The masks of a step's channels share what their element is worth.
        width = topk.layout.to_channels(topk.layout.width.to(removal))
        # What is not finite has to show, although importances never are.
        return masks.ratio_gradient(-removal / width) + 0 * grad.sum()

    @property
    def _topk(self) -> Any:
        return self._mutator[0].topk

    def _state(self) -> Tuple[Tensor, ...]:
        """Floating-point state that all ranks share."""
        step = self.step
        return (
            *(parameter.detach() for parameter in self._topk.learnable()),
            self._topk.importance,
            step.mean,
            step.square,
            step.share,
            step.history,
            *([] if self.redundancy is None else [self.redundancy.portion]),
        )

    def _constraint(self) -> Constraint:
        """Gradients and excess of the resources of this step."""
        logs = [current.log() for current in self._current.values()]
        (learnable,) = self._topk.learnable()
        grads = [
            torch.autograd.grad(log, learnable, retain_graph=True)[0]
            for log in logs
        ]
        excess = torch.stack(logs).detach() - self.targets.log()
        return Constraint(torch.stack(grads), excess, self.weights)


def _checked_settings(settings: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    """The settings of a config, if their names are known."""
    if not isinstance(settings, (Mapping, type(None))):
        raise DMSError(
            '`structure_step` must be a dict such as '
            f"dict(rule='price'), got {settings!r}."
        )
    settings = dict(settings or {})
    for key in settings:
        if key not in ('rule', 'lr', 'average', 'signal'):
            raise DMSError(
                f'`structure_step.{key}` is unknown; it takes `rule`, '
                '`lr`, `average` and `signal`.'
            )
    return settings


def _checked_signal(mutator: DMSMutator, signal: Optional[str]) -> str:
    """What the task says of a ratio, if that can be had."""
    if signal not in (None, *SIGNALS):
        raise DMSError(
            f'`structure_step.signal` must be one of {list(SIGNALS)}, '
            f'got {signal!r}.'
        )
    topk, metric = mutator.topk, mutator.masks.metric
    learns_ratios = topk.learnable()[0] is topk.pruning_ratio
    losses = [name for name in METRICS if name not in SIGNED_METRICS]
    if signal in SIGNALS[1:] and not (metric in losses and learns_ratios):
        raise DMSError(
            f'`structure_step.signal`: {signal!r} needs one of '
            f'{losses} as `mutator.importance.metric`, got '
            f"{metric!r}, and `mutator.method='dms'`, got "
            f'{mutator.masks.method!r}.'
        )
    return signal or SIGNALS[0]


def _build_step(
    mutator: DMSMutator, settings: Dict[str, Any]
) -> StructureStep:
    """The rule of a config, checked."""
    topk = mutator.topk
    (learnable,) = topk.learnable()
    settings = {**topk.step_settings, **settings}
    if learnable is not topk.pruning_ratio and settings['rule'] == 'price':
        raise DMSError(
            "`structure_step.rule`: 'price' moves pruning ratios, and "
            f'mutator.method={mutator.masks.method!r} has none; leave it '
            "away, or choose 'adam' or 'plain'."
        )
    try:
        step = StructureStep(learnable.numel(), **settings)
    except ValueError as error:
        raise DMSError(f'`structure_step`: {error}') from None
    return step.to(learnable.device)


def _doubles(values: List[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
