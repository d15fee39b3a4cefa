"""Recognize a removable residual block by trying it.

A block x + f(x) can be removed if its output equals its input once f is
silenced; that is a fact about the block's arithmetic, whatever its code or
names look like, so it is tested on the block itself. A transformer layer has
two residual branches, which one mask silences together.
"""

from contextlib import contextmanager
from types import MappingProxyType
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_map

from dms_mmrazor.graph.running import intercepting
from dms_mmrazor.layers import masked_form

_TOLERANCE = 1e-6

_FEW = 10
"""Of so many ends all pairs are tried."""

_SUMS = 1e-5
"""Difference of sums of tensors that may be the same."""

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


class BlockRun(NamedTuple):
    """A block with the arguments it once was called with.

    Attributes:
        block (nn.Module): The block.
        x (Tensor): Its input, the first argument.
        y (Tensor): Its output, of the same shape; the first tensor of it
            if there are more.
        rest (tuple): Further arguments.
        named (Mapping[str, Any]): Keyword arguments. Defaults to {}.
        key (str): Keyword of the input; '' if it has none. Defaults to ''.
        apart (frozenset[nn.Module]): Modules that end no branch of the
            block, so that none is silenced alone. Defaults to none.
    """

    block: nn.Module
    x: Tensor
    y: Tensor
    rest: Tuple[Any, ...] = ()
    named: Mapping[str, Any] = MappingProxyType({})
    key: str = ''
    apart: FrozenSet[nn.Module] = frozenset()

    @property
    def does_nothing(self) -> bool:
        """Whether the block gives back its input as it is."""
        return close(self.y, self.x)

    def output(
        self,
        factors: Dict[nn.Module, float],
        bypassed: Sequence[nn.Module] = (),
    ) -> Tensor:
        """Output of the block with outputs of some modules scaled.

        Args:
            factors (dict[nn.Module, float]): What to scale.
            bypassed (Sequence[nn.Module]): Modules that give their inputs.
                Defaults to ().
        """
        handles = [
            module.register_forward_hook(Scale(factor))
            for module, factor in factors.items()
        ]
        handles += [m.register_forward_hook(bypass) for m in bypassed]
        try:
            return self._call(self.x)
        finally:
            for handle in handles:
                handle.remove()

    def _call(self, x: Tensor) -> Tensor:
        """What the block gives for an input; all arguments are copied."""
        rest, named = tree_map(copied, (self.rest, dict(self.named)))
        if self.key:
            output = self.block(*rest, **{self.key: x.clone()}, **named)
        else:
            output = self.block(x.clone(), *rest, **named)
        return first_tensor(output)

    @property
    def leads_around(self) -> bool:
        """Whether its input reaches its output past all of its layers."""
        layers = [
            module
            for module in self.block.modules()
            if module is not self.block
            and any(True for _ in module.parameters(recurse=False))
        ]

        def silence(
            module: nn.Module,
            forward: Callable[..., Any],
            *args: Any,
            **kw: Any,
        ) -> Any:
            return tree_map(silenced, forward(*args, **kw))

        with intercepting(layers, silence):
            return not close(self._call(self.x), self._call(2 * self.x))

    def is_identity(
        self,
        factors: Dict[nn.Module, float],
        bypassed: Sequence[nn.Module] = (),
    ) -> bool:
        """Whether the block then gives back its input."""
        return close(self.output(factors, bypassed), self.x)


@contextmanager
def remembering(block: nn.Module) -> Iterator[None]:
    """Let the layers of a block compute their first output once.

    To find the branches of a block, its modules are silenced one by one:
    what runs before them does the same each time, and large kernels take
    most of the time. What runs behind them seldom sees the same twice, and
    its feature maps may be larger than the model.

    Args:
        block (nn.Module): A part of a throw-away copy of a model.
    """
    known: Dict[nn.Module, Tuple[Tensor, Tensor]] = {}

    def look_up(
        module: nn.Module, forward: Callable[..., Any], *args: Any, **kw: Any
    ) -> Any:
        if kw or len(args) != 1 or not isinstance(args[0], Tensor):
            return forward(*args, **kw)
        if module in known:
            x, y = known[module]
            same = x.shape == args[0].shape and torch.equal(x, args[0])
            return y.clone() if same else forward(*args)
        x, y = args[0].clone(), forward(*args)
        if isinstance(y, Tensor):
            known[module] = x, y.clone()
        return y

    layers = [
        module
        for module in block.modules()
        if isinstance(module, (_ConvNd, nn.Linear))
    ]
    with intercepting(layers, look_up):
        yield


def bypass(module: nn.Module, args: Any, out: Tensor) -> Tensor:
    """Give the input of a module, as torch calls a forward hook."""
    return args[0]


class Scale:
    """Forward hook that multiplies the output of a module.

    Of several outputs, as of an attention, the first one.

    Args:
        factor (float): The number.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, module: nn.Module, args: Any, out: Any) -> Any:
        """Multiply, as torch calls a forward hook."""
        if isinstance(out, tuple):
            return (out[0] * self.factor, *out[1:])
        return out * self.factor


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
        for value in tensors_of(args):
            if value.numel() == run.x.numel():
                found[_sums(value)] = None

    inner = [m for m in run.block.modules() if m is not run.block]
    handles = [m.register_forward_pre_hook(record) for m in inner]
    run.output({})
    for handle in handles:
        handle.remove()
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
    handles = [m.register_forward_hook(record) for m in inner]
    run.output({})
    for handle in handles:
        handle.remove()
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
    handles = [m.register_forward_hook(record) for m in inner]
    run.output({})
    for handle in handles:
        handle.remove()
    return [m for m in reversed(calls) if calls.count(m) == 1]


def copied(value: Any) -> Any:
    """A tensor that may be changed in place; other values as they are."""
    return value.clone() if isinstance(value, Tensor) else value


def silenced(value: Any) -> Any:
    """Zeros in place of a tensor of numbers."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.zeros_like(value)
    return value


def first_tensor(output: Any) -> Any:
    """The first tensor of what a module gives; the whole if it has none."""
    return next(iter(tensors_of(output)), output)


def tensors_of(outputs: Any) -> List[Tensor]:
    """All tensors of nested tuples, lists, dicts and objects, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    elif hasattr(outputs, '__dict__') and not callable(outputs):
        outputs = list(vars(outputs).values())
    if isinstance(outputs, (tuple, list)):
        return [t for part in outputs for t in tensors_of(part)]
    return []


def close(a: Tensor, b: Tensor, tolerance: float = _TOLERANCE) -> bool:
    """Whether two tensors are equal up to rounding."""
    if a.shape != b.shape:
        return False
    scale = torch.max(b.abs().max(), torch.ones_like(b.flatten()[0]))
    return bool((a - b).abs().max() <= tolerance * scale)
