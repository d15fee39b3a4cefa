"""Targets of a rounding, with everything fixed but numbers of channels."""

import math
from typing import Dict, List, Mapping, Sequence

import torch
from torch import Tensor

from .resource import ResourceModel

__all__ = ['Budget']

_CHUNK = 1 << 21
"""Numbers that a batch of candidates may hold at once (16 MB)."""


class Budget:
    """What numbers of channels cost, against the targets.

    Args:
        models (Mapping[str, ResourceModel]): Resource model of each target.
        targets (Mapping[str, float]): Largest allowed resources, the same
            names.
        block_mask (Sequence[float]): Depth masks of the B blocks, fixed.

    Raises:
        ValueError: If the names differ or a target is not positive and
            finite.
    """

    def __init__(
        self,
        models: Mapping[str, ResourceModel],
        targets: Mapping[str, float],
        block_mask: Sequence[float],
    ) -> None:
        _check_targets(models, targets)
        self.models = models
        self.targets = targets
        device = next(iter(models.values())).coefficient.device
        # MACs of a large model exceed what single precision tells apart by one
        # channel.
        self.blocks = torch.tensor(
            list(block_mask), dtype=torch.float64, device=device
        )

    def resources(self, counts: Sequence[float]) -> Dict[str, float]:
        """What the numbers of channels [U] cost, per target."""
        with torch.no_grad():
            kept = self._tensor(counts)
            return {
                name: float(model(kept, self.blocks, whole=True))
                for name, model in self.models.items()
            }

    def excess(self, counts: Sequence[float]) -> float:
        """The largest relative excess over a target; up to 0 all are met."""
        return max(
            (value - self.targets[name]) / self.targets[name]
            for name, value in self.resources(counts).items()
        )

    @torch.no_grad()
    def excesses(self, candidates: Tensor) -> Tensor:
        """:meth:`excess` of many candidates [M, U]; shape [M]."""
        models = self.models.items()
        terms = max(len(model.layers) for _, model in models)
        # A candidate needs a number for every term; all at once would not fit.
        return torch.cat(
            [
                torch.stack(
                    [
                        model(part, self.blocks, whole=True)
                        / self.targets[name]
                        - 1
                        for name, model in models
                    ]
                ).amax(0)
                for part in candidates.split(max(1, _CHUNK // terms))
            ]
        )

    def depends_on(self, counts: Sequence[float]) -> List[bool]:
        """Whether any resource depends on each of the units."""
        kept = self._tensor(counts).requires_grad_()
        total = sum(model(kept, self.blocks) for model in self.models.values())
        (grad,) = torch.autograd.grad(total, kept)
        return (grad != 0).tolist()

    def elasticities(self, counts: Sequence[float]) -> Tensor:
        """∂log r / ∂log k of the mean of all targets, shape [U]."""
        kept = self._tensor(counts).requires_grad_()
        logs = [
            # A resource of 0 has no logarithm.
            model(kept, self.blocks).clamp(min=1e-300).log()
            for model in self.models.values()
        ]
        (grad,) = torch.autograd.grad(sum(logs) / len(logs), kept)
        return grad * kept.detach()

    def check_reachable(self, smallest: Sequence[int]) -> None:
        """Raise ValueError if the smallest numbers exceed a target."""
        for name, value in self.resources(smallest).items():
            if value > self.targets[name]:
                raise ValueError(
                    f'target {name!r} of {self.targets[name]:g} cannot be '
                    f'reached: the smallest allowed numbers of channels still '
                    f'need {value:g}. Raise the target, or lower the minimum '
                    'numbers or the divisors.'
                )

    def _tensor(self, counts: Sequence[float]) -> Tensor:
        return torch.tensor(
            counts, dtype=torch.float64, device=self.blocks.device
        )


def _check_targets(
    models: Mapping[str, ResourceModel], targets: Mapping[str, float]
) -> None:
    if not models or set(models) != set(targets):
        raise ValueError(
            'models and targets must have the same names, at '
            f'least one, but got {sorted(models)} and '
            f'{sorted(targets)}.'
        )
    for name, target in targets.items():
        if not (target > 0 and math.isfinite(target)):
            raise ValueError(
                f'target {name!r} must be positive and finite, '
                f'but got {target}.'
            )
