"""Recognize a removable residual block by trying it.

A block x + f(x) can be removed if its output equals its input once f is
silenced; that is a fact about the block's arithmetic, whatever its code or
names look like, so it is tested on the block itself. A transformer layer has
two residual branches, which one mask silences together.

To find the branches of a block, each of its modules is silenced once. Of a
second block with the same modules it is enough to silence the same ones: if
that makes it the identity, it is a block of the same form.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_flatten

from dms_mmrazor.graph.block_run import BlockRun, close, remembering
from dms_mmrazor.graph.running import removing
from dms_mmrazor.layers import masked_form

_FEW = 10
"""Of so many ends all pairs are tried."""

_SUMS = 1e-5
"""Difference of sums of tensors that may be the same."""

Modules = Tuple[Tuple[str, type], ...]
Kind = Tuple[Modules, Optional[torch.Size]]
"""Modules of a block, and the shape of its input where that matters."""

Cluster = Tuple[Tensor, List[nn.Module]]
"""What a block gives without an end, and the modules with that effect."""


class ResidualBlock(NamedTuple):
    """A block that can be removed.

    Attributes:
        name (str): Its module name.
        carrier (str): The module at the end of f, which the depth mask
            multiplies.
        folds (bool): Whether the mask can be folded into the carrier's
            weight; otherwise its output is multiplied.
        others (tuple[tuple[str, bool], ...]): Carriers of further branches,
            each with whether it folds. Defaults to ().
        bypassed (tuple[str, ...]): Norms of the block's own input, which
            give the input itself as the mask goes to 0. Defaults to ().
    """

    name: str
    carrier: str
    folds: bool
    others: Tuple[Tuple[str, bool], ...] = ()
    bypassed: Tuple[str, ...] = ()

    @property
    def carriers(self) -> Tuple[Tuple[str, bool], ...]:
        """The carrier of every branch, each with whether it folds."""
        return ((self.carrier, self.folds), *self.others)


class Branches(NamedTuple):
    """Residual branches of a block, with what each carries its mask.

    Attributes:
        ends (tuple[str, ...]): Of each branch its last module in the block.
        carriers (tuple[tuple[str, bool], ...]): Of each branch the module
            that the mask multiplies, and whether it folds.
        bypassed (tuple[str, ...]): As of :class:`ResidualBlock`.
    """

    ends: Tuple[str, ...]
    carriers: Tuple[Tuple[str, bool], ...]
    bypassed: Tuple[str, ...]


def find_branches(run: BlockRun) -> Optional[Branches]:
    """The residual branches, or ``None`` if the block cannot be removed."""
    if run.does_nothing:
        return None
    branches, norms = _branch_ends(run), []
    if not branches:
        branches, norms = _beside_a_norm(run)
    if not branches:
        return None
    names = {module: child for child, module in run.block.named_modules()}
    chosen = [_choose_carrier(ends, run) for ends in branches]
    return Branches(
        tuple(names[ends[0]] for ends in branches),
        tuple((names[carrier], folds) for carrier, folds in chosen),
        tuple(names[norm] for norm in norms),
    )


def residual_block(name: str, branches: Branches) -> ResidualBlock:
    """A block with its carriers by their full names."""
    carriers = [(f'{name}.{c}', folds) for c, folds in branches.carriers]
    bypassed = tuple(f'{name}.{norm}' for norm in branches.bypassed)
    return ResidualBlock(name, *carriers[0], tuple(carriers[1:]), bypassed)


def _branch_ends(run: BlockRun) -> List[List[nn.Module]]:
    """For each residual branch the modules that can silence it."""
    calls = _candidates(run)
    silent = [(module, run.output({module: 0.0})) for module in calls]
    single = [module for module, out in silent if close(out, run.x)]
    if single:
        return [single]
    # Modules at the end of one branch have the same effect.
    clusters: List[Cluster] = []
    for module, out in silent:
        same = [modules for other, modules in clusters if close(other, out)]
        if same:
            same[0].append(module)
        else:
            clusters.append((out, [module]))
    return _two_ends(run, clusters)


def _two_ends(
    run: BlockRun, clusters: Sequence[Cluster]
) -> List[List[nn.Module]]:
    """Ends of two branches that make the block the identity together.

    Not every pair is tried, which takes a run each, but those with an end
    of the last branch: without it the block gives what its second half
    reads, or the half of it changes the output by half.
    """
    read = _inputs_within(run)
    likely = [
        i for i, (out, _) in enumerate(clusters) if _looks_like(out, read)
    ]
    if not likely:
        likely = [
            index
            for index, (out, ends) in enumerate(clusters)
            if close(run.output({ends[0]: 0.5}), (out + run.y) / 2)
        ]
    if not likely and len(clusters) <= _FEW:
        likely = list(range(len(clusters)))
    for last in likely:
        for other in range(len(clusters)):
            pair = [clusters[i][1] for i in sorted((last, other))]
            ends = {modules[0]: 0.0 for modules in pair}
            if other != last and run.is_identity(ends):
                return pair
    return []


def _looks_like(out: Tensor, read: Sequence[Tuple[float, float]]) -> bool:
    """Whether a tensor has the sums of one of those, whatever its shape."""
    sums = torch.tensor(_sums(out))
    return any(close(sums, torch.tensor(s), _SUMS) for s in read)


def _sums(tensor: Tensor) -> Tuple[float, float]:
    """Mean of absolute values and of squares."""
    numbers = tensor.detach().double()
    return float(numbers.abs().mean()), float(numbers.square().mean())


def _inputs_within(run: BlockRun) -> List[Tuple[float, float]]:
    """Sums of all tensors of the block's size that its modules read."""
    found: Dict[Tuple[float, float], None] = {}

    def record(module: nn.Module, args: Any) -> None:
        for value in tree_flatten(args)[0]:
            if isinstance(value, Tensor) and value.numel() == run.x.numel():
                found[_sums(value)] = None

    inner = [m for m in run.block.modules() if m is not run.block]
    with removing(m.register_forward_pre_hook(record) for m in inner):
        run.output({})
    found.pop(_sums(run.x), None)
    return list(found)


def _beside_a_norm(
    run: BlockRun,
) -> Tuple[List[List[nn.Module]], List[nn.Module]]:
    """Branches of a block like relu(f(x) + g(x) + norm(x)), and its norms.

    With x = relu(x), as the block before gives it, the block is the identity
    once f and g are silent and the norm gives x: the residual branch is
    f(x) + g(x) + norm(x) - x. RepVGG and MobileOne have such blocks.
    """
    roots = _readers_of_input(run)
    norms = [root for root in roots if isinstance(root, _BatchNorm)]
    branches = [root for root in roots if root not in norms]
    if not norms or not branches:
        return [], []
    if not run.is_identity(dict.fromkeys(branches, 0.0), norms):
        return [], []
    calls = _candidates(run)
    ends = []
    for root in branches:
        silent = run.output({root: 0.0})
        inner = [m for m in calls if m in set(root.modules()) - {root}]
        same = [m for m in inner if close(run.output({m: 0.0}), silent)]
        ends.append([root, *same])
    return ends, norms


def _readers_of_input(run: BlockRun) -> List[nn.Module]:
    """Modules that read the block's input, the outermost ones alone."""
    readers: List[nn.Module] = []

    def record(module: nn.Module, args: Any, output: Any) -> None:
        if (
            args
            and isinstance(args[0], Tensor)
            and isinstance(output, Tensor)
            and output.shape == run.x.shape
            and args[0].shape == run.x.shape
            and torch.equal(args[0], run.x)
        ):
            readers.append(module)

    inner = [m for m in run.block.modules() if m is not run.block]
    with removing(m.register_forward_hook(record) for m in inner):
        run.output({})
    nested = {m for r in readers for m in r.modules() if m is not r}
    return [m for m in readers if m not in nested and readers.count(m) == 1]


def _choose_carrier(
    ends: List[nn.Module], run: BlockRun
) -> Tuple[nn.Module, bool]:
    """A module that a mask can be folded into, else the last one."""
    expected = run.output({ends[0]: 0.5})
    for module in ends:
        # A norm may have no weight.
        weight = getattr(module, 'weight', None)
        if weight is not None and masked_form(type(module)) is not None:
            if close(run.output({module: 0.5}), expected):
                return module, True
    return ends[0], False


def _candidates(run: BlockRun) -> List[nn.Module]:
    """Modules that could end f: last first, each called once.

    Their outputs may have another shape than the block's, such as windows.
    """
    calls: List[nn.Module] = []

    def record(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, tuple) and output:
            output = output[0]
        if isinstance(output, Tensor) and output.numel() == run.x.numel():
            calls.append(module)

    left_out = {run.block, *run.apart}
    inner = [m for m in run.block.modules() if m not in left_out]
    with removing(m.register_forward_hook(record) for m in inner):
        run.output({})
    return [m for m in reversed(calls) if calls.count(m) == 1]


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
    with removing(m.register_forward_pre_hook(count) for m in used):
        silent = run.is_identity(dict.fromkeys(carriers, 0.0), norms)
    if run.does_nothing or not silent or len(calls) != len(used):
        return False
    if ends == carriers:
        return True
    halves = [
        run.output(dict.fromkeys(part, 0.5)) for part in (ends, carriers)
    ]
    return close(*halves)
