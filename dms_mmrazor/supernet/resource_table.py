"""Resources of a supernet and of what is kept of it."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from dms_mmrazor.core import ResourceModel
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit
from dms_mmrazor.subnet.structure import split_name
from dms_mmrazor.supernet.mask_state import MaskState


class ResourceTable(nn.Module):
    """The resource models, evaluated for the masks of a search.

    Args:
        models (dict[str, ResourceModel]): By kind: 'macs' (of one image),
            'params'; 'latency' comes with a latency table.
        state (MaskState): Masks of the search.
        units (Sequence[DMSChannelUnit]): Width units.
        stages (Sequence[DMSDepthUnit]): Depth units.

    Attributes:
        full (dict[str, float]): Resources of the supernet, all kept.
        notes (dict[str, dict]): By kind what a structure file says of it
            beside the numbers: the device of a latency, say.
    """

    def __init__(
        self,
        models: Dict[str, ResourceModel],
        state: MaskState,
        units: Sequence[DMSChannelUnit],
        stages: Sequence[DMSDepthUnit],
    ) -> None:
        super().__init__()
        for model in models.values():
            model.follow_(state.followings)
        self.models = nn.ModuleDict(models)
        # In tuples: these modules are registered once, in the mutator.
        self._state = (state,)
        self._units = tuple(units)
        self._stages = tuple(stages)
        self.full = {kind: self._full(kind) for kind in models}
        self.notes: Dict[str, Dict[str, Any]] = {}

    def add(self, kind: str, model: ResourceModel) -> None:
        """Add a kind, or replace it."""
        model.follow_(self._state[0].followings)
        self.models[kind] = model.to(self._state[0].topk.importance.device)
        self.full[kind] = self._full(kind)

    def model(self, kind: str) -> ResourceModel:
        """Resource model of one kind.

        Raises:
            DMSError: If there is no such kind.
        """
        if kind not in self.models:
            raise DMSError(
                f'unknown resource {kind!r}; known: {list(self.models)}.'
            )
        return self.models[kind]

    def soft(self, kind: str, blocks: Optional[Tensor] = None) -> Tensor:
        """0-dim float64, differentiable in all pruning ratios (Eq. 8).

        Args:
            kind (str): A kind of resource.
            blocks (Tensor, optional): Soft depth masks [B] if they are
                known already. Defaults to None.
        """
        state = self._state[0]
        blocks = state.soft_blocks() if blocks is None else blocks
        return self.model(kind)(state.kept(), blocks)

    def hard(self, kind: str) -> float:
        """Of what an export now would keep."""
        state = self._state[0]
        return self.evaluate(kind, state.hard_kept(), state.hard_blocks())

    @torch.no_grad()
    def evaluate(self, kind: str, kept: Tensor, blocks: Tensor) -> float:
        """Resource of widths [U] and depth masks [B]."""
        model = self.model(kind)
        device = self._state[0].topk.importance.device
        return float(model(kept.to(device), blocks.to(device), whole=True))

    def parts(
        self, kind: str, by: str = 'layer', hard: bool = True
    ) -> Dict[str, float]:
        """What the layers, or the stages, contribute; for logs and plots.

        Synchronizes with the host.

        Args:
            kind (str): A kind of resource.
            by (str): 'layer', or 'stage': what precedes the first number in
                the layers' names. Defaults to 'layer'.
            hard (bool): Of what an export now would keep; otherwise of the
                continuous widths and soft depths. Defaults to True.

        Returns:
            dict[str, float]: In network order; the sum is the resource.

        Raises:
            DMSError: If ``kind`` or ``by`` is unknown.
        """
        if by not in ('layer', 'stage'):
            raise DMSError(f"`by` must be 'layer' or 'stage', got {by!r}.")
        state = self._state[0]
        kept = state.hard_kept() if hard else state.kept()
        blocks = state.hard_blocks() if hard else state.soft_blocks()
        layers = self.model(kind).by_layer(kept, blocks)
        if by == 'layer':
            return layers
        stages: Dict[str, float] = {}
        for layer, value in layers.items():
            stage = split_name(layer)[0]
            stages[stage] = stages.get(stage, 0.0) + value
        return stages

    def range(self, kind: str, divisor: int = 1) -> Tuple[float, float]:
        """Smallest and largest resource within the limits of the units.

        Args:
            kind (str): A kind of resource.
            divisor (int): Widths are multiples of it, or full. Defaults to
                1.
        """
        low = [_narrowest(unit, divisor) for unit in self._units]
        high = [unit.max_kept for unit in self._units]
        fewest = [stage.min_blocks for stage in self._stages]
        most = [stage.max_blocks for stage in self._stages]
        return (
            self._extreme(kind, low, fewest, cheapest=True),
            self._extreme(kind, high, most, cheapest=False),
        )

    def _full(self, kind: str) -> float:
        sizes = [float(unit.num_channels) for unit in self._units]
        return self.evaluate(kind, torch.tensor(sizes), self._all_blocks())

    def _all_blocks(self) -> Tensor:
        return torch.ones(sum(stage.num_blocks for stage in self._stages))

    def _extreme(
        self, kind: str, kept: List[int], depths: List[int], cheapest: bool
    ) -> float:
        """Resource with the cheapest (dearest) blocks of each stage."""
        widths = torch.tensor(kept, dtype=torch.float64)
        device = self._state[0].topk.importance.device
        costs = self.model(kind).by_layer(
            widths.to(device), self._all_blocks().to(device)
        )
        mask: List[float] = []
        for stage, depth in zip(self._stages, depths):
            cost = [
                sum(v for k, v in costs.items() if k.startswith(f'{name}.'))
                for name in stage.block_names
            ]
            order = sorted(range(len(cost)), key=lambda i: cost[i])
            chosen = order[:depth] if cheapest else order[::-1][:depth]
            mask += [float(i in chosen) for i in range(len(cost))]
        return self.evaluate(kind, widths, torch.tensor(mask))


def _narrowest(unit: DMSChannelUnit, divisor: int) -> int:
    """The smallest width that an export may give a unit."""
    step = unit.divisor(divisor)
    return min(-(-unit.min_kept // step) * step, unit.max_kept)
