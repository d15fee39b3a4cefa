"""Widths that make up for a depth that becomes hard."""

from contextlib import contextmanager
from typing import Iterator, Mapping

import torch
from torch import Tensor

from dms_mmrazor.models.mutators import DMSMutator


@contextmanager
def widths_follow(
    mutator: DMSMutator, targets: Mapping[str, float]
) -> Iterator[None]:
    """Widen all units by what blocks lose inside, up to the target.

    The resource loss narrows widths if a block becomes a whole one, but it
    is 0 below the target (Eq. 7), where nothing but the task loss would
    widen them if a block is dropped. All kept portions grow by the same
    number, as they would at the end of the search by
    :func:`~dms_mmrazor.core.fit_to_targets`, but here they still train. It
    is one step of Newton's method, exact for small changes. Of several
    targets the nearest one counts. Does not synchronize with the host.

    Not in the paper, which only holds the depth (appendix A.1.2).

    Args:
        mutator (DMSMutator): During a search, its depth held on leaving.
        targets (Mapping[str, float]): Resource kind → present target r_t.
    """
    with torch.no_grad():
        before = _distance(mutator, targets)
    yield
    topk = mutator.topk
    after = _distance(mutator, targets)
    (slope,) = torch.autograd.grad(after, topk.pruning_ratio)
    with torch.no_grad():
        free = (topk.held == 0) & (topk.pruning_ratio > topk.layout.lower)
        slope = torch.where(free, slope, torch.zeros_like(slope))
        lost = (before.clamp(max=0) - after).clamp(min=0).to(slope.dtype)
        # More pruning never costs more; 0 where no unit can widen.
        gain = slope.sum().neg()
        shift = torch.where(gain > 0, lost / gain, torch.zeros_like(gain))
        topk.pruning_ratio.sub_(shift * free)
        topk.project_()


def _distance(mutator: DMSMutator, targets: Mapping[str, float]) -> Tensor:
    """log(r_c / r_t) of the nearest target, 0-dim float64, differentiable."""
    logs = [
        (mutator.table.soft(kind) / target).log()
        for kind, target in targets.items()
    ]
    return torch.stack(logs).max()
