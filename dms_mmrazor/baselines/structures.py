"""Structures that no search has found: what a search has to beat.

All of them meet the same targets with the same rounding as the export of a
search, on the units of the same prepared mutator, which stays as it is.
"""

import math
import random
from copy import deepcopy
from typing import (
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
)

import torch
from torch import Tensor

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.search.export import uniform_structure
from dms_mmrazor.search.fitted_structure import fit_choices
from dms_mmrazor.subnet import Structure
from dms_mmrazor.supernet.choice_space import ChoiceSpace
from dms_mmrazor.supernet.static_scores import StaticScores

Targets = Mapping[str, float]
"""Resource kind → absolute target."""

COMPOUND = math.log(1.2) / math.log(1.1)
"""EfficientNet's rule: depth is the width to the power of 1.91."""


class Request(NamedTuple):
    """What a method may use.

    Attributes:
        targets (Mapping[str, float]): Resource kind → absolute target.
        divisor (int): Of the widths. Defaults to 8.
        seed (int): Of random choices. Defaults to 0.
        losses (Iterable[Callable], optional): Calls the supernet on one
            batch each and returns the task loss. Defaults to None.
        found (Structure, optional): What a search has found. Defaults to
            None.
    """

    targets: Targets
    divisor: int = 8
    seed: int = 0
    losses: Optional[Iterable[Callable[[], Tensor]]] = None
    found: Optional[Structure] = None


class Candidates:
    """Structures of a mutator, by the portion that each operator keeps.

    Args:
        mutator (DMSMutator): Prepared; not changed.
        targets (Mapping[str, float]): Resource kind → absolute target.
        scores (Tensor, optional): Who is kept first, shape [E]. Defaults
            to None: the first ones.
    """

    def __init__(
        self,
        mutator: DMSMutator,
        targets: Targets,
        scores: Optional[Tensor] = None,
    ) -> None:
        self.mutator = deepcopy(mutator)
        self.targets = targets
        self.topk = self.mutator.topk
        self.topk.release_()
        self.topk.importance.zero_()
        if scores is not None:
            self.topk.importance.copy_(scores)
        self.widths = len(mutator.units)

    def keep(self, portions: Sequence[float]) -> None:
        """Keep a portion in [0, 1] of each operator's elements."""
        ratio = 1 - torch.as_tensor(portions, dtype=torch.float64)
        self.topk.pruning_ratio.data.copy_(ratio)
        self.topk.project_()

    def excess(self, portions: Sequence[float]) -> float:
        """Log of the resource relative to the nearest target."""
        self.keep(portions)
        return max(
            math.log(max(self._resource(kind), 1e-9) / target)
            for kind, target in self.targets.items()
        )

    def _resource(self, kind: str) -> float:
        masks = self.mutator.masks
        kept = masks.kept().detach()
        return self.mutator.table.evaluate(kind, kept, masks.hard_blocks())

    def structure(self, portions: Sequence[float], divisor: int) -> Structure:
        """Round portions so that the targets are met, and write them down.

        Raises:
            DMSError: If a target cannot be reached.
        """
        self.keep(portions)
        mutator = self.mutator
        mutator.set_choices(fit_choices(mutator, self.targets, divisor))
        rows: Dict[str, Dict[str, float]] = {}
        for kind, full in mutator.table.full.items():
            value = mutator.resource(kind)
            rows[kind] = {
                'supernet': full,
                'subnet': value,
                'ratio': round(value / full, 4),
            }
            if kind in self.targets:
                rows[kind]['target'] = float(self.targets[kind])
        return mutator.structure(resources=rows)


def random_structure(mutator: DMSMutator, request: Request) -> Structure:
    """Widths and depths uniform among those that meet the targets.

    As the structures of all methods, it is then brought as near to the
    target as whole numbers allow.
    """
    space = ChoiceSpace(mutator, request.targets, request.divisor)
    choices = space.sample(random.Random(request.seed))
    candidates = Candidates(mutator, request.targets)
    portions = [
        choices[name] / op.size
        for name, op in zip(space.names, mutator.topk.operators)
    ]
    return candidates.structure(portions, request.divisor)


def kept_blocks_first(mutator: DMSMutator, structure: Structure) -> Tensor:
    """Scores by which blocks that a structure keeps stay before others.

    Args:
        mutator (DMSMutator): Prepared, of the same supernet.
        structure (Structure): What a search has found.

    Returns:
        Tensor: Of the elements, 0 for those of units, shape [E].
    """
    scores = torch.zeros_like(mutator.topk.importance)
    kept = {name for stage in structure.stages for name in stage.kept}
    names = [n for stage in mutator.depth_units for n in stage.block_names]
    if names:
        scores[-len(names) :] = scores.new_tensor([n in kept for n in names])
    return scores


def depth_uniform(mutator: DMSMutator, request: Request) -> Structure:
    """The blocks that a search has found, with uniform widths.

    Raises:
        DMSError: If no structure was given.
    """
    if request.found is None:
        raise DMSError(
            '`depth-uniform` needs a structure whose blocks it keeps.'
        )
    kept = {name for s in request.found.stages for name in s.kept}
    scores = kept_blocks_first(mutator, request.found)
    portions = [1.0] * len(mutator.units)
    portions += [
        sum(name in kept for name in stage.block_names) / stage.num_blocks
        for stage in mutator.depth_units
    ]
    candidates = Candidates(mutator, request.targets, scores)
    return candidates.structure(portions, request.divisor)


def compound(mutator: DMSMutator, request: Request) -> Structure:
    """All widths by one ratio w, all depths by w to the power of 1.91."""
    candidates = Candidates(mutator, request.targets)
    widths = len(mutator.units)
    stages = [stage.num_blocks for stage in mutator.depth_units]

    def scaled(width: float) -> List[float]:
        depths = [round(width**COMPOUND * n) / n for n in stages]
        return [width] * widths + depths

    return _largest(candidates, scaled, request.divisor)


def l1_uniform(mutator: DMSMutator, request: Request) -> Structure:
    """All widths by one ratio, of the channels with the largest L1 norms.

    What a pruning by L1 norms does that gives every layer the same ratio.
    All blocks stay.
    """
    scores = norm_scores(mutator, 'l1')
    candidates = Candidates(mutator, request.targets, scores)
    widths, stages = len(mutator.units), len(mutator.depth_units)

    def scaled(width: float) -> List[float]:
        return [width] * widths + [1.0] * stages

    return _largest(candidates, scaled, request.divisor)


def _largest(
    candidates: Candidates,
    portions: Callable[[float], List[float]],
    divisor: int,
) -> Structure:
    """The largest structure of a family of one number that fits."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if candidates.excess(portions(middle)) <= 0:
            low = middle
        else:
            high = middle
    return candidates.structure(portions(low), divisor)


def cut_globally(
    mutator: DMSMutator, scores: Tensor, request: Request
) -> Structure:
    """Keep the elements above one threshold for all units.

    Args:
        mutator (DMSMutator): Prepared.
        scores (Tensor): Of the elements, shape [E]; comparable everywhere.
        request (Request): Targets and divisor.
    """
    candidates = Candidates(mutator, request.targets, scores)
    layout = mutator.topk.layout
    ordered = torch.sort(scores).values
    sizes = layout.sum_elements(torch.ones_like(scores))

    def portions(removed: int) -> List[float]:
        above = scores >= ordered[removed]
        return (layout.sum_elements(above.to(scores)) / sizes).tolist()

    low, high = 0, len(scores) - 1
    while low < high:
        middle = (low + high) // 2
        if candidates.excess(portions(middle)) <= 0:
            high = middle
        else:
            low = middle + 1
    return candidates.structure(portions(low), request.divisor)


@torch.no_grad()
def norm_scores(mutator: DMSMutator, metric: str) -> Tensor:
    """Norms of the outputs' weights, relative to their unit's mean.

    Weights of different layers have no common scale, those of blocks none
    at all: blocks are above any threshold.

    Args:
        mutator (DMSMutator): Prepared, of a supernet with trained weights.
        metric (str): 'l1' or 'l2'.

    Returns:
        Tensor: Scores, shape [E].
    """
    scores = StaticScores(metric, mutator.units, mutator.depth_units)
    device = mutator.topk.importance.device
    topk, widths = mutator.topk, len(mutator.units)
    layout = topk.layout
    values = layout.sum_channels(scores.to(device)().to(topk.importance))
    mean = layout.sum_elements(values) / layout.sum_elements(
        torch.ones_like(values)
    )
    relative = values / layout.to_elements(mean).clamp(min=1e-12)
    return torch.where(
        layout.owner < widths, relative, relative.new_tensor(math.inf)
    )


def taylor_scores(
    mutator: DMSMutator, losses: Iterable[Callable[[], Tensor]]
) -> Tensor:
    """Mean of ``(m dL/dm)^2`` over batches with everything kept (Eq. 4).

    Args:
        mutator (DMSMutator): Prepared, of a supernet with trained weights.
        losses (Iterable[Callable]): Each calls the supernet on one batch
            and returns its task loss.

    Returns:
        Tensor: Scores, shape [E].

    Raises:
        DMSError: If there is no batch.
    """
    state, layout = mutator.masks, mutator.topk.layout
    total, number = torch.zeros_like(mutator.topk.importance), 0
    for loss in losses:
        mask = torch.ones_like(state.mask).requires_grad_()
        with torch.enable_grad(), state.showing(mask):
            (grad,) = torch.autograd.grad(loss(), mask)
        total += layout.sum_channels(grad).square()
        number += 1
    if not number:
        raise DMSError('Taylor scores need at least one batch.')
    return total / number


def greedy(mutator: DMSMutator, scores: Tensor, request: Request) -> Structure:
    """Again and again narrow the unit that saves most for its score.

    The price of an element is its score over what it saves now, relative to
    the targets that are exceeded. Scores are not computed anew.

    Args:
        mutator (DMSMutator): Prepared.
        scores (Tensor): Of the elements, shape [E].
        request (Request): Targets and divisor.
    """
    candidates = Candidates(mutator, request.targets, scores)
    operators = mutator.topk.operators
    counts = [op.most for op in operators]
    parts = scores.detach().cpu().split([op.num_elements for op in operators])
    ordered = [torch.sort(p, descending=True).values.tolist() for p in parts]
    while candidates.excess(_portions(counts, operators)) > 0:
        saved = _savings(candidates)
        prices = {
            index: ordered[index][count - 1] / max(saved[index], 1e-30)
            for index, count in enumerate(counts)
            if count > operators[index].fewest
        }
        if not prices:
            break  # what is left is the business of the rounding
        counts[min(prices, key=lambda index: (prices[index], index))] -= 1
    return candidates.structure(_portions(counts, operators), request.divisor)


def _portions(counts: Sequence[int], operators: Sequence) -> List[float]:
    return [n / op.num_elements for n, op in zip(counts, operators)]


def _savings(candidates: Candidates) -> List[float]:
    """What removing the last element of each operator saves, relative."""
    mutator, masks = candidates.mutator, candidates.mutator.masks
    kept = masks.kept().detach().requires_grad_()
    blocks = masks.hard_blocks().requires_grad_()
    total = kept.new_zeros(())
    for kind, target in candidates.targets.items():
        value = mutator.table.model(kind)(kept, blocks) / target
        if value > 1:
            total = total + value
    widths, depths = torch.autograd.grad(
        total, [kept, blocks], allow_unused=True
    )
    steps = [op.step for op in mutator.topk.operators]
    saved = [] if widths is None else (widths.tolist())
    saved = [value * step for value, step in zip(saved, steps)]
    first, topk = 0, mutator.topk
    scores = topk.importance[len(topk.importance) - len(blocks) :]
    for stage in mutator.depth_units:
        mine = slice(first, first + stage.num_blocks)
        first += stage.num_blocks
        present = blocks[mine].detach() > 0
        # The block that goes next is the least important one present.
        absent = scores.new_tensor(math.inf)
        order = torch.where(present, scores[mine], absent)
        saved.append(float(depths[mine][order.argmin()]))
    return saved


def _uniform(mutator: DMSMutator, request: Request) -> Structure:
    return uniform_structure(mutator, request.targets, request.divisor)


def _l1(mutator: DMSMutator, request: Request) -> Structure:
    return cut_globally(mutator, norm_scores(mutator, 'l1'), request)


def _l2(mutator: DMSMutator, request: Request) -> Structure:
    return cut_globally(mutator, norm_scores(mutator, 'l2'), request)


def _taylor(mutator: DMSMutator, request: Request) -> Structure:
    scores = taylor_scores(mutator, request.losses or ())
    return cut_globally(mutator, scores, request)


def _greedy(mutator: DMSMutator, request: Request) -> Structure:
    scores = taylor_scores(mutator, request.losses or ())
    return greedy(mutator, scores, request)


Method = Callable[[DMSMutator, Request], Structure]

STRUCTURES: Dict[str, Method] = {
    'uniform': _uniform,
    'random': random_structure,
    'depth-uniform': depth_uniform,
    'compound': compound,
    'l1-uniform': l1_uniform,
    'l1': _l1,
    'l2': _l2,
    'taylor': _taylor,
    'greedy': _greedy,
}
"""Methods without a search, by name."""
