"""Finds out which masks each layer of a supernet reads."""

from functools import partial
from typing import Callable, Dict, List, Optional, Sequence

import torch
from torch import Tensor, nn

from dms_mmrazor.layers import DMSOp
from dms_mmrazor.models.mutables import (
    LayerMasks,
    MaskPlan,
    MaskTable,
    PlannedMask,
)

Compose = Callable[[], Optional[Tensor]]


def plan_masks(
    supernet: nn.Module, table: MaskTable, sizes: Sequence[int]
) -> MaskPlan:
    """Plan the masks of all layers, and let these read what is planned.

    Args:
        supernet (nn.Module): Its layers know where their masks come from.
        table (MaskTable): What they read; it is empty afterwards.
        sizes (Sequence[int]): Channels (blocks) of the operators.

    Returns:
        MaskPlan: Fills the layers' masks.
    """
    probe = _Probe(table, sizes)
    planned: List[PlannedMask] = []
    for layer in supernet.modules():
        if isinstance(layer, DMSOp):
            planned += _plan_layer(layer, probe)
    table.masks = None
    return MaskPlan(planned, sum(sizes))


def _plan_layer(layer: DMSOp, probe: '_Probe') -> List[PlannedMask]:
    """The masks of one layer."""
    found: Dict[str, Tensor] = {}
    for name in ('inputs', 'outputs', 'depth'):
        factors = probe.factors(partial(_compose, layer, name))
        if factors is not None:
            found[name] = factors
    carrier = 'inputs' if 'inputs' in found else 'outputs'
    carried = layer.carries_depth and {carrier, 'depth'} <= set(found)
    if carried:
        # A factor of a small mask costs nothing, one of a weight does.
        length = found[carrier].shape[1]
        depth = found['depth'].expand(-1, length)
        found[carrier] = torch.cat([found[carrier], depth])
    layer.given = LayerMasks(carried=carried)
    return [
        PlannedMask(layer.given, name, factors, probe.operator(factors))
        for name, factors in found.items()
    ]


def _compose(layer: DMSOp, name: str) -> Optional[Tensor]:
    """One mask of a layer, from what its containers and handles read."""
    return getattr(layer.composed_masks(), name)


class _Probe:
    """Learns what a mask is made of by showing masks that tell.

    Whatever composes a mask multiplies masks of operators, after it has
    repeated them or put them behind one another. With one operator's masks
    numbered and those of all others 1, it shows where these numbers go.

    Args:
        table (MaskTable): What is read by whatever composes masks.
        sizes (Sequence[int]): Channels of the operators.
    """

    def __init__(self, table: MaskTable, sizes: Sequence[int]) -> None:
        self.table = table
        self.sizes = list(sizes)
        self.total = sum(sizes)
        # The number 1 stands for no mask.
        numbers = torch.arange(self.total, dtype=torch.float64) + 2
        self.numbers = numbers.split(self.sizes)
        self.ones = torch.ones_like(numbers).split(self.sizes)
        self.random = torch.rand_like(numbers).requires_grad_()

    def factors(self, compose: Compose) -> Optional[Tensor]:
        """Where the factors of a mask are in the flat masks.

        Args:
            compose (Callable): Gives the mask, or ``None``.

        Returns:
            Tensor, optional: int64 [F, N], C for 1; None without a mask.

        Raises:
            RuntimeError: If the mask is not a product of masks.
        """
        with torch.enable_grad():
            self.table.masks = self.random.split(self.sizes)
            mask = compose()
            if mask is None:
                return None
            used = self._used(mask)
        rows: List[Tensor] = []
        for operator in used:
            _put(rows, self._places(compose, operator))
        factors = torch.stack(rows or [self._nowhere(mask)])
        factors[factors < 0] = self.total
        self._check(factors, mask)
        return factors

    def operator(self, factors: Tensor) -> Optional[int]:
        """The operator whose mask it is as a whole, and as it is."""
        first = int(factors[0, 0])
        start = 0
        for operator, size in enumerate(self.sizes):
            if start == first:
                whole = torch.arange(start, start + size)[None]
                return operator if torch.equal(factors, whole) else None
            start += size
        return None

    def _used(self, mask: Tensor) -> List[int]:
        """Operators that a mask depends on."""
        if not mask.requires_grad:
            return []
        (grad,) = torch.autograd.grad(mask.sum(), self.random)
        parts = grad.split(self.sizes)
        return [i for i, part in enumerate(parts) if part.any()]

    def _places(self, compose: Compose, operator: int) -> Tensor:
        """Where an operator's masks stand in a mask, -1 elsewhere: [N]."""
        masks = list(self.ones)
        masks[operator] = self.numbers[operator]
        self.table.masks = tuple(masks)
        return compose().reshape(-1).long() - 2

    def _nowhere(self, mask: Tensor) -> Tensor:
        return torch.full((mask.numel(),), -1)

    def _check(self, factors: Tensor, mask: Tensor) -> None:
        with torch.no_grad():
            one = self.random.new_ones(1)
            product = torch.cat([self.random, one])[factors].prod(0)
            if not torch.allclose(product, mask.reshape(-1), rtol=1e-9):
                raise RuntimeError('a mask is not a product of masks')


def _put(rows: List[Tensor], places: Tensor) -> None:
    """Add places to the first row of factors that is free there."""
    for row in rows:
        if not ((row >= 0) & (places >= 0)).any():
            row[places >= 0] = places[places >= 0]
            return
    rows.append(places)
