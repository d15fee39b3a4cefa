"""Try a block as others of its kind, which is much less work.

To find the branches of a block, each of its modules is silenced once. Of a
second block with the same modules it is enough to silence the same ones: if
that makes it the identity, it is a block of the same form.
"""

from typing import Any, Dict, List, Optional, Set, Tuple

import torch
from torch import nn

from dms_mmrazor.graph.residual_block import (
    BlockRun,
    Branches,
    ResidualBlock,
    close,
    find_branches,
    remembering,
    residual_block,
)

Modules = Tuple[Tuple[str, type], ...]
Kind = Tuple[Modules, Optional[torch.Size]]
"""Modules of a block, and the shape of its input where that matters."""


class KnownBlocks:
    """Finds removable blocks and remembers the branches of each kind."""

    def __init__(self) -> None:
        self._known: Dict[Kind, Branches] = {}
        self._unfit: Set[Tuple[Any, ...]] = set()

    def find(self, name: str, run: BlockRun) -> Optional[ResidualBlock]:
        """The block with its carriers, or ``None`` if it cannot be removed.

        Args:
            name (str): Full name of the block.
            run (BlockRun): A call of it.
        """
        modules = tuple((n, type(m)) for n, m in run.block.named_modules())
        kinds = ((modules, None), (modules, run.x.shape))
        known = [self._known[kind] for kind in kinds if kind in self._known]
        branches = known[0] if known else None
        alike = (*kinds[1], settings_of(run))
        with remembering(run.block):
            if branches is None or not has_branches(run, branches):
                if alike in self._unfit or run.does_nothing:
                    return None
                branches = find_branches(run)
        if branches is None:
            self._unfit.add(alike)
            return None
        # With another shape a layer may fold that does not here.
        everywhere = all(folds for _, folds in branches.carriers)
        self._known[kinds[0] if everywhere else kinds[1]] = branches
        return residual_block(name, branches)


def settings_of(run: BlockRun) -> Tuple[Any, ...]:
    """Plain values of a block's modules and of its call, in their order."""
    owners = [vars(module) for module in run.block.modules()]
    owners += [dict(enumerate(run.rest)), dict(run.named)]
    return tuple(
        (key, repr(value))
        for owner in owners
        for key, value in owner.items()
        if isinstance(value, (bool, int, float, str, tuple))
    )


def has_branches(run: BlockRun, branches: Branches) -> bool:
    """Whether a block has the branches that another one of its kind has.

    It has if it does something, is the identity once they are silent, and
    half a mask on a carrier is half a mask on the end of its branch.

    Args:
        run (BlockRun): A call of the block.
        branches (Branches): Names of modules that it has.
    """
    modules = dict(run.block.named_modules())
    ends = [modules[name] for name in branches.ends]
    carriers = [modules[name] for name, _ in branches.carriers]
    norms = [modules[name] for name in branches.bypassed]
    calls: List[nn.Module] = []

    def count(module: nn.Module, args: Any) -> None:
        calls.append(module)

    used = {*ends, *carriers}
    handles = [m.register_forward_pre_hook(count) for m in used]
    silent = run.is_identity(dict.fromkeys(carriers, 0.0), norms)
    for handle in handles:
        handle.remove()
    if run.does_nothing or not silent or len(calls) != len(used):
        return False
    if ends == carriers:
        return True
    halves = [
        run.output(dict.fromkeys(part, 0.5)) for part in (ends, carriers)
    ]
    return close(*halves)
