"""What the other channels could replace, measured while a search runs."""

import functools
from typing import Any, List, Sequence, Tuple

import torch
from torch import Tensor, nn

from dms_mmrazor.core import FlatTopk, KeepsPrecision
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.units import DMSDepthUnit
from dms_mmrazor.search.watched import Sums, find_sources

INTERVAL = 10
"""Steps from one measurement to the next: the step with one costs more, see
benchmarks/README.md."""


def _is_compiling() -> bool:
    """Whether this is being traced by ``torch.compile``."""
    compiler = getattr(torch, 'compiler', None)
    return compiler is not None and compiler.is_compiling()


class Redundancy(KeepsPrecision):
    """Measures how much of each element no other one could replace.

    Every :data:`INTERVAL` steps it looks at what passes the layers and
    blocks of the supernet, and adds that to sums that forget slowly; from
    them follows for each element the portion that is irreplaceable: of a
    channel the variance that a linear function of the other channels leaves
    (:func:`remaining_variance`), of a dim of queries and keys what that
    leaves of their product, of a residual block what is not linear in its
    input (:func:`unexplained_variance`). Elements that several layers tell
    of have the mean; those that nothing tells of (what grouped convolutions
    alone read, wide layers of which too few samples were seen) count as the
    average element.

    Attributes:
        portion (Tensor): Of each element of the flat masks, in (0, 1], ones
            at the start, shape [C].

    Args:
        supernet (nn.Module): Prepared, with its masks.
        number (int): Number C of flat masks.
        stages (Sequence[DMSDepthUnit]): Its stages. Defaults to ().

    Raises:
        DMSError: If no layer reads a searched channel.
    """

    portion: Tensor
    places: Tensor

    def __init__(
        self,
        supernet: nn.Module,
        number: int,
        stages: Sequence[DMSDepthUnit] = (),
    ) -> None:
        super().__init__()
        sources = find_sources(supernet, stages)
        self.sums = nn.ModuleList(map(Sums, sources))
        if not len(self.sums):
            raise DMSError(
                "`structure_step.signal='removal'`: no layer reads "
                'searched channels, so that nothing can be compared; use '
                "'importance'."
            )
        self.register_buffer('portion', torch.ones(number))
        # What is not searched adds to a place behind all others.
        places = torch.cat([source.index.flatten() for source in sources])
        places = torch.where(places < 0, number, places)
        self.register_buffer('places', places, persistent=False)
        self.to(next(supernet.parameters()).device)
        self._step = 0
        self._handles: List[Any] = []
        self._seen = False

    def begin(self) -> None:
        """Watch the supernet in this step, if it is time."""
        if self._step % INTERVAL or self._handles:
            return
        self._seen = False
        for sums in self.sums:
            watch = functools.partial(self._see, sums)
            module = sums.source.module
            self._handles.append(module.register_forward_hook(watch))

    @torch.no_grad()
    def finish(self, topk: FlatTopk) -> None:
        """Stop watching, and compute what follows.

        Args:
            topk (FlatTopk): The operators, whose importances weigh the
                average over elements.

        Raises:
            DMSError: If no layer was seen that should have been.
        """
        self._step += 1
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if not self._seen:
            raise DMSError(
                "`structure_step.signal='removal'` watches what layers "
                'read, and saw nothing: a compiled model cannot be watched. '
                "Use signal='importance', or do not compile the search."
            )
        importance = topk.layout.to_channels(topk.importance)
        self.portion.copy_(self._average(importance))

    @torch.no_grad()
    def _see(
        self,
        sums: Sums,
        module: nn.Module,
        inputs: Tuple[Any, ...],
        output: Any,
    ) -> None:
        """Add what passes, as torch calls a forward hook."""
        # What is traced once would be done in every step.
        if not _is_compiling() and sums.see(inputs, output):
            self._seen = True

    def _average(self, importance: Tensor) -> Tensor:
        """Portions of all elements, the mean where nothing tells."""
        values = torch.cat([sums.portions().flatten() for sums in self.sums])
        known = ~values.isnan()
        total = values.new_zeros(len(self.portion) + 1)
        count = total.index_add(0, self.places, known.to(total))[:-1]
        total = total.index_add(0, self.places, values.nan_to_num(0.0))[:-1]
        seen = count > 0
        mean = total / count.clamp(min=1)
        weight = torch.where(seen, importance, torch.zeros_like(importance))
        usual = (weight * mean).sum() / weight.sum().clamp(min=1e-30)
        usual = torch.where(weight.sum() > 0, usual, torch.ones_like(usual))
        return torch.where(seen, mean, usual)

    def get_extra_state(self) -> Tensor:
        """Steps so far, known to the host: which ones measure is."""
        return torch.tensor(self._step)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on with the steps of a checkpoint."""
        self._step = int(state)
