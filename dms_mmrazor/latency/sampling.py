"""Random structures of a supernet, as plain models."""

import random
from typing import Dict, List, Protocol

import torch
from torch import Tensor, nn

from dms_mmrazor.core.allowed import make_units
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.subnet import pruned_copy
from dms_mmrazor.supernet.plain import plain_copy

_SPREAD = 0.35
"""How far the kept ratios of a random structure lie from their mean."""


class Prepared(Protocol):
    """A supernet whose mutator is prepared.

    Attributes:
        architecture (nn.Module): The supernet.
        mutator (DMSMutator): Its units.
    """

    architecture: nn.Module
    mutator: DMSMutator


class SubnetSampler:
    """Makes random structures of a supernet and plain models of them.

    Args:
        algorithm (Prepared): A prepared search; it is not changed.
        seed (int): Seed of the structures.
        device (torch.device): Where the models are wanted.

    Attributes:
        supernet (nn.Module): The plain supernet.
    """

    def __init__(
        self, algorithm: Prepared, seed: int, device: torch.device
    ) -> None:
        self.mutator: DMSMutator = algorithm.mutator
        self.supernet = plain_copy(algorithm.architecture, share=True)
        self.supernet.to(device)
        self._random = random.Random(seed)

    def choices(self, level: float, divisor: int) -> Dict[str, int]:
        """Random numbers of kept channels and blocks.

        Args:
            level (float): Mean kept ratio in [0, 1].
            divisor (int): Widths are multiples of it, or full.
        """
        return self.rounded(self.wishes(level), divisor)

    def wishes(self, level: float) -> Dict[str, float]:
        """Random kept ratios of units and stages around a mean."""
        units = self.mutator.searched_units
        return {
            unit.name: min(
                max(level + self._random.uniform(-_SPREAD, _SPREAD), 0), 1
            )
            for unit in units
        }

    def rounded(
        self, wishes: Dict[str, float], divisor: int
    ) -> Dict[str, int]:
        """Whole numbers nearest to kept ratios, within the limits."""
        units = self.mutator.units
        allowed = make_units(
            len(units),
            [wishes[unit.name] * unit.num_channels for unit in units],
            [unit.min_kept for unit in units],
            [unit.max_kept for unit in units],
            self.mutator.divisors(divisor),
        )
        kept = {u.name: a.nearest(a.wish) for u, a in zip(units, allowed)}
        for stage in self.mutator.depth_units:
            number = round(wishes[stage.name] * stage.num_blocks)
            kept[stage.name] = min(
                max(number, stage.min_blocks), stage.max_blocks
            )
        return kept

    def subnet(self, choices: Dict[str, int], depth: bool = True) -> nn.Module:
        """Plain model of a structure, to be timed.

        Its weights lie in those of the supernet, so that many subnets take
        no more memory than one: they have its numbers, but not in the right
        places.

        Args:
            choices (dict[str, int]): Kept channels and blocks.
            depth (bool): Whether to remove blocks. Defaults to True.
        """
        structure = self.mutator.structure(choices)
        if not depth:
            structure = structure._replace(stages=())
        subnet = pruned_copy(self.supernet, structure)
        whole = dict(self.supernet.named_parameters())
        largest = max(whole.values(), key=Tensor.numel)
        for name, parameter in subnet.named_parameters():
            # Blocks behind a removed one have other names.
            source = whole.get(name, largest)
            number = parameter.numel()
            source = source if source.numel() >= number else largest
            values = source.data.flatten()[:number]
            parameter.data = values.view(parameter.shape)
        return subnet


def levels(number: int) -> List[float]:
    """Mean kept ratios, evenly from narrow to wide."""
    return [(index + 0.5) / number for index in range(number)]
