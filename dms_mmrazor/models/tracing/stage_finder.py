"""Find the stages of removable residual blocks of a plain model.

Contiguous removable blocks of one ``Sequential`` are a stage (paper,
appendix A.1.1), and so are those of a ``ModuleList`` whose blocks are called
one after the other. Where the model hands out a feature map (its
``out_indices``), a stage of a list ends.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from mmengine.model.utils import revert_sync_batchnorm
from torch import Tensor, nn

from dms_mmrazor.models.ops.block_lists import remove_blocks
from dms_mmrazor.models.tracing.block_containers import (
    BlockContainer,
    block_containers,
)
from dms_mmrazor.models.tracing.demo import (
    demo_tensor,
    enliven,
    evaluating,
    forward_tensors,
    small_shape,
)
from dms_mmrazor.models.tracing.known_blocks import KnownBlocks
from dms_mmrazor.models.tracing.light_copy import light_copy
from dms_mmrazor.models.tracing.residual_block import (
    BlockRun,
    ResidualBlock,
    Scale,
    bypass,
    close,
    tensors_of,
)

_ROUNDING = 1e-4
"""Difference of whole networks that add up the same numbers otherwise."""


class ResidualStage(NamedTuple):
    """Contiguous removable blocks.

    Attributes:
        name (str): Name of the container.
        blocks (tuple[ResidualBlock]): In the order of the forward pass.
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
    input_size = small_shape(model, input_size)
    enliven(model, input_size)
    with evaluating(model):
        containers = block_containers(model)
        runs = _block_runs(model, containers, input_size)
        known = KnownBlocks()
        found = [_stages_of(c, runs, known) for c in containers]
        lists = [
            stage
            for container, stages in zip(containers, found)
            if container.kind is not nn.Sequential
            for stage in stages
        ]
        chains = _chains(model, lists, demo_tensor(model, input_size))
    others = [stage for stage in lists if stage not in chains]
    return _without_nesting(
        [s for stages in found for s in stages if s not in others]
    )


def _without_nesting(stages: List[ResidualStage]) -> List[ResidualStage]:
    """Of two stages of which one is in the other, search the longer one."""
    result = list(stages)
    for index, outer in enumerate(stages):
        for position, inner in enumerate(stages):
            if not outer.contains(inner):
                continue
            shorter, longer = (position, outer), (index, inner)
            if len(outer.blocks) < len(inner.blocks):
                shorter, longer = longer, shorter
            place, other = shorter
            result[place] = stages[place]._replace(
                reason=f'it overlaps stage {other.name}'
            )
    return result


def _chains(
    model: nn.Module, stages: Sequence[ResidualStage], image: Tensor
) -> List[ResidualStage]:
    """Stages of lists whose blocks are called one after the other.

    Usually all are, which one trial shows.
    """
    nested = any(a.contains(b) for a in stages for b in stages)
    if len(stages) > 1 and not nested and _are_chains(model, stages, image):
        return list(stages)
    return [stage for stage in stages if _are_chains(model, [stage], image)]


def _are_chains(
    model: nn.Module, stages: Sequence[ResidualStage], image: Tensor
) -> bool:
    """Whether removing a block of each list does what silencing it does.

    It does not where something else reads the blocks, too, such as a
    concatenation of all their outputs (but that of a C2f is narrowed).
    """
    blocks = [stage.blocks[0] for stage in stages]
    silent, short = light_copy(model), light_copy(model)
    for block in blocks:
        for carrier, _ in block.carriers:
            silent.get_submodule(carrier).register_forward_hook(Scale(0.0))
        for norm in block.bypassed:
            silent.get_submodule(norm).register_forward_hook(bypass)
    remove_blocks(short, [block.name for block in blocks])
    try:
        outputs = [
            tensors_of(forward_tensors(m, image, True))
            for m in (silent, short)
        ]
    except Exception:  # whatever a module's code may raise
        return False
    return all(close(a, b, _ROUNDING) for a, b in zip(*outputs))


def _block_runs(
    model: nn.Module,
    containers: Sequence[BlockContainer],
    input_size: Tuple[int, ...],
) -> Dict[nn.Module, BlockRun]:
    """Calls of blocks that run once and keep the shape of their input."""
    runs: Dict[nn.Module, Optional[BlockRun]] = {}
    inputs: Dict[nn.Module, Any] = {}

    def remember(module: nn.Module, args: Tuple[Any, ...]) -> None:
        x = args[0] if args else None
        # A block may change it in place.
        inputs[module] = x.clone() if isinstance(x, Tensor) else x

    def record(module: nn.Module, args: Tuple[Any, ...], output: Any) -> None:
        x = inputs.pop(module)
        fits = (
            module not in runs
            and isinstance(x, Tensor)
            and isinstance(output, Tensor)
            and x.shape == output.shape
        )
        runs[module] = (
            BlockRun(module, x, output.clone(), args[1:]) if fits else None
        )

    candidates = [m for c in containers for m in c.candidates]
    # What is scaled must not be what was stored.
    for module in model.modules():
        if hasattr(module, 'inplace'):
            module.inplace = False
    handles = [m.register_forward_pre_hook(remember) for m in set(candidates)]
    handles += [m.register_forward_hook(record) for m in set(candidates)]
    forward_tensors(model, demo_tensor(model, input_size), True)
    for handle in handles:
        handle.remove()
    return {m: run for m, run in runs.items() if run is not None}


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
