"""Find the stages of removable residual blocks of a plain model.

Contiguous removable blocks of one ``Sequential`` are a stage (paper,
appendix A.1.1), and so are those of a ``ModuleList`` whose blocks are called
one after the other. Where the model hands out a feature map (its
``out_indices``), a stage of a list ends.
"""

from collections import Counter
from inspect import signature
from typing import (
    Any,
    Callable,
    Dict,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from mmengine.model.utils import revert_sync_batchnorm
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from dms_mmrazor.errors import raise_device_error
from dms_mmrazor.graph.block_run import (
    BlockRun,
    Scale,
    bypass,
    close,
    copied,
    first_tensor,
)
from dms_mmrazor.graph.demo import (
    demo_tensor,
    enliven,
    evaluating,
    forward_tensors,
    small_shape,
)
from dms_mmrazor.graph.light_copy import light_copy
from dms_mmrazor.graph.outputs import flatten_tensors
from dms_mmrazor.graph.residual_block import KnownBlocks, ResidualBlock
from dms_mmrazor.graph.running import (
    intercepting,
    one_line,
)
from dms_mmrazor.layers.block_lists import (
    BlockContainer,
    block_containers,
    remove_blocks,
)

_ROUNDING = 1e-4
"""Difference of whole networks that add up the same numbers otherwise."""


_IN_A_ROW = 3
"""Blocks that two ends of branches cannot silence."""


class ResidualStage(NamedTuple):
    """Contiguous removable blocks.

    Attributes:
        name (str): Name of the container.
        blocks (tuple[ResidualBlock]): In the order of the forward pass;
            none where its blocks cannot be removed.
        fixed (int): Blocks of the container that are always kept.
        reason (str): Why its depth is not searched. Defaults to '', it is.
    """

    name: str
    blocks: Tuple[ResidualBlock, ...]
    fixed: int
    reason: str = ''

    def contains(self, other: 'ResidualStage') -> bool:
        """Whether the other stage is a part of one of the blocks."""
        return any(
            other.blocks[0].name.startswith(f'{block.name}.')
            for block in self.blocks
        )


def find_stages(
    model: nn.Module, input_size: Tuple[int, ...]
) -> List[ResidualStage]:
    """Stages of removable residual blocks.

    Args:
        model (nn.Module): A plain model; it is not changed.
        input_size (tuple): (B, C, H, W) of a demo input.

    Returns:
        list[ResidualStage]: In the order of the model's modules.
    """
    model = revert_sync_batchnorm(light_copy(model))
    # A fresh model's branches may give nothing: all would look removable.
    input_size = small_shape(model, input_size)
    enliven(model, input_size)
    with evaluating(model):
        containers = block_containers(model)
        calls = _block_calls(model, containers, input_size)
        runs = {m: call.run for m, call in calls.items() if not call.unfit}
        found = _all_stages(model, containers, runs)
        lists = [
            stage
            for container, stages in zip(containers, found)
            if container.kind is not nn.Sequential
            for stage in stages
        ]
        against = _against_chains(model, lists, demo_tensor(model, input_size))
        stages = [
            _unsearched(stage, against.get(stage, ''))
            for stages in found
            for stage in stages
        ]
        named = [stage.name for stage in stages]
        silent = [
            stage
            for container, stages in zip(containers, found)
            if not stages
            for stage in _silent_list(container, calls, named)
        ]
    return _without_nesting(stages) + silent


def _all_stages(
    model: nn.Module,
    containers: Sequence[BlockContainer],
    runs: Dict[nn.Module, BlockRun],
) -> List[List[ResidualStage]]:
    """Stages of each container; inner ones are tried first.

    What has three blocks in a row inside of it is made the identity by none
    of their modules, but for the last one, so that these are not tried.
    """
    known = KnownBlocks()
    apart: Set[nn.Module] = set()
    found = []
    for container in reversed(containers):
        runs = {m: r._replace(apart=frozenset(apart)) for m, r in runs.items()}
        stages = _stages_of(container, runs, known)
        found.append(stages)
        for stage in stages:
            if len(stage.blocks) >= _IN_A_ROW:
                blocks = [model.get_submodule(b.name) for b in stage.blocks]
                apart.update(m for block in blocks for m in block.modules())
                apart.discard(blocks[-1])
    return found[::-1]


def _unsearched(stage: ResidualStage, reason: str) -> ResidualStage:
    """The stage; without its blocks if there is a reason against it."""
    if not reason:
        return stage
    number = len(stage.blocks) + stage.fixed
    return stage._replace(blocks=(), fixed=number, reason=reason)


def _silent_list(
    container: BlockContainer,
    calls: Dict[nn.Module, 'BlockCall'],
    named: Sequence[str],
) -> List[ResidualStage]:
    """Why similar residual blocks of a list are no stage.

    Blocks without a way around their layers, such as the convolutions of a
    head, need no reason.

    Args:
        container (BlockContainer): A list without a removable block.
        calls (dict[nn.Module, BlockCall]): First calls of blocks.
        named (Sequence[str]): Stages that have been found.
    """
    inside = f'{container.name}.'
    if any(name.startswith(inside) for name in named):
        return []
    kinds = Counter(type(block) for block in container.candidates)
    for block in container.candidates:
        call = calls.get(block)
        several = kinds[type(block)] > 1 or (call and call.unfit)
        if several and call and call.run.leads_around:
            reason = call.unfit or (
                'no part of them can be silenced so that each gives back '
                'its input'
            )
            number = len(container.blocks)
            return [ResidualStage(container.name, (), number, reason)]
    return []


def _without_nesting(stages: List[ResidualStage]) -> List[ResidualStage]:
    """Of two stages of which one is in the other, search the longer one.

    A list within a list that has the same name (of its first block) has one
    block each: what is said of the other holds for both.
    """
    result: List[Optional[ResidualStage]] = list(stages)
    for index, outer in enumerate(stages):
        for position, inner in enumerate(stages):
            if not (inner.blocks and outer.contains(inner)):
                continue
            shorter, longer = (position, outer), (index, inner)
            if len(outer.blocks) < len(inner.blocks):
                shorter, longer = longer, shorter
            place, other = shorter
            reason = f'it overlaps stage {other.name}'
            same = other.name == stages[place].name
            result[place] = (
                None if same else stages[place]._replace(reason=reason)
            )
    return [stage for stage in result if stage is not None]


def _against_chains(
    model: nn.Module, stages: Sequence[ResidualStage], image: Tensor
) -> Dict[ResidualStage, str]:
    """Of lists whose blocks are not called one after the other, why.

    Usually all are, which one trial shows.
    """
    # Of nested ones only one can lose blocks in a trial.
    nested = any(a.contains(b) for a in stages for b in stages)
    if len(stages) > 1 and not nested:
        if not _against_chain(model, stages, image):
            return {}
    return {stage: _against_chain(model, [stage], image) for stage in stages}


def _against_chain(
    model: nn.Module, stages: Sequence[ResidualStage], image: Tensor
) -> str:
    """What speaks against removing a block of each list; '' if nothing.

    Removing it must do what silencing it does. It does not where something
    else reads the blocks, too, such as a concatenation of all their outputs
    (but that of a C2f is narrowed).
    """
    blocks = [stage.blocks[0] for stage in stages]
    silent, short = light_copy(model), light_copy(model)
    for block in blocks:
        for carrier, _ in block.carriers:
            silent.get_submodule(carrier).register_forward_hook(Scale(0.0))
        for norm in block.bypassed:
            silent.get_submodule(norm).register_forward_hook(bypass)
    remove_blocks(short, [block.name for block in blocks])
    expected = flatten_tensors(forward_tensors(silent, image, True))
    if not expected:
        return 'the model gives no tensor that could prove its blocks a chain'
    removed = f'without {blocks[0].name}'
    try:
        outputs = flatten_tensors(forward_tensors(short, image, True))
    except Exception as error:  # whatever a module's code may raise
        raise_device_error(error)
        return f'{removed} the model does not run: {one_line(error)}'
    same = len(outputs) == len(expected) and all(
        close(a, b, _ROUNDING) for a, b in zip(expected, outputs)
    )
    return '' if same else f'{removed} something else reads other blocks'


class BlockCall(NamedTuple):
    """The first call of what may be a block.

    Attributes:
        run (BlockRun): The call.
        unfit (str): Why it is no removable block; '' if it may be one.
    """

    run: BlockRun
    unfit: str


def _block_calls(
    model: nn.Module,
    containers: Sequence[BlockContainer],
    input_size: Tuple[int, ...],
) -> Dict[nn.Module, BlockCall]:
    """First calls of blocks that give a tensor of the shape of their input."""
    calls: Dict[nn.Module, BlockCall] = {}

    def record(
        module: nn.Module, forward: Callable[..., Any], *args: Any, **kw: Any
    ) -> Any:
        if module in calls:
            again = 'they are called more than once'
            calls[module] = calls[module]._replace(unfit=again)
            return forward(*args, **kw)
        # A block may change its arguments in place.
        rest, named = tree_map(copied, (args, kw))
        output = forward(*args, **kw)
        y = first_tensor(output)
        run = _block_run(module, forward, rest, named, copied(y))
        if run is not None and isinstance(y, Tensor):
            several = 'they give more than one tensor'
            # Beside the tensor may be numbers, such as the size of a map.
            unfit = '' if len(flatten_tensors(output)) == 1 else several
            if y.shape == run.x.shape:
                calls[module] = BlockCall(run, unfit)
        return output

    candidates = {m for c in containers for m in c.candidates}
    # What is scaled must not be what was stored.
    for module in model.modules():
        if hasattr(module, 'inplace'):
            module.inplace = False
    with intercepting(candidates, record):
        forward_tensors(model, demo_tensor(model, input_size), True)
    return calls


def _block_run(
    module: nn.Module,
    forward: Callable[..., Any],
    args: Tuple[Any, ...],
    named: Dict[str, Any],
    y: Any,
) -> Optional[BlockRun]:
    """A call whose first argument, by its place or its name, is a tensor."""
    if args and isinstance(args[0], Tensor):
        return BlockRun(module, args[0], y, tuple(args[1:]), named)
    key = next(iter(signature(forward).parameters), '')
    if not args and isinstance(named.get(key), Tensor):
        rest = {k: value for k, value in named.items() if k != key}
        return BlockRun(module, named[key], y, (), rest, key)
    return None


def _stages_of(
    container: BlockContainer,
    runs: Dict[nn.Module, BlockRun],
    known: KnownBlocks,
) -> List[ResidualStage]:
    """Series of removable blocks in one container."""
    series: List[List[ResidualBlock]] = [[]]
    after_fixed: List[bool] = [False]
    previous: Optional[BlockRun] = None
    for index, (child_name, child) in enumerate(container.blocks):
        run = runs.get(child)
        block = None
        if run is not None:
            block = known.find(container.full_name(child_name), run)
        ended = index - 1 in container.ends
        if block is None or ended or not _follows(previous, run):
            series.append([])
            after_fixed.append(block is None)
        if block is not None:
            series[-1].append(block)
        previous = run
    fixed = len(container.blocks) - sum(map(len, series))
    stages = [
        (blocks, _fixed(container, fixed, after))
        for blocks, after in zip(series, after_fixed)
        if blocks
    ]
    if len(stages) == 1:
        ((blocks, number),) = stages
        return [ResidualStage(container.name, tuple(blocks), number)]
    return [ResidualStage(b[0].name, tuple(b), number) for b, number in stages]


def _fixed(container: BlockContainer, fixed: int, after_fixed: bool) -> int:
    """Blocks that stay whatever is removed, as a depth unit counts them.

    A ``ModuleList`` is never emptied, whoever iterates over it; and the
    place of a feature map that is handed out must not move to one that is
    handed out, too.
    """
    if container.kind is nn.Sequential:
        return fixed
    return fixed if container.kind is list and after_fixed else 0


def _follows(previous: Optional[BlockRun], run: Optional[BlockRun]) -> bool:
    """Whether a block's input is the output of the block before."""
    if previous is None or run is None:
        return True
    return close(previous.y, run.x)
