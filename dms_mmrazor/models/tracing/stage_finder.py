"""Find the stages of removable residual blocks of a plain model.

Contiguous removable blocks of one ``Sequential`` are a stage (paper,
appendix A.1.1), and so are those of a ``ModuleList`` whose blocks are called
one after the other. Where the model hands out a feature map (its
``out_indices``), a stage of a list ends.
"""

from copy import deepcopy
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from mmengine.model.utils import revert_sync_batchnorm
from torch import Tensor, nn

from dms_mmrazor.models.ops.block_lists import remove_blocks
from dms_mmrazor.models.tracing.demo import (
    demo_tensor,
    enliven,
    evaluating,
    forward_tensors,
)
from dms_mmrazor.models.tracing.residual_block import (
    BlockRun,
    ResidualBlock,
    Scale,
    close,
    residual_block,
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
    """

    name: str
    blocks: Tuple[ResidualBlock, ...]
    fixed: int


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
    model = revert_sync_batchnorm(deepcopy(model))
    enliven(model, input_size)
    with evaluating(model):
        runs = _block_runs(model, input_size)
        stages = []
        image = demo_tensor(model, input_size)
        for name, container in model.named_modules():
            if isinstance(container, (nn.Sequential, nn.ModuleList)):
                ends = _stage_ends(model, name, container)
                found = _stages_of(name, container, runs, ends)
                if isinstance(container, nn.ModuleList):
                    found = [s for s in found if _is_chain(model, s, image)]
                stages += found
    return stages


def _is_chain(model: nn.Module, stage: ResidualStage, image: Tensor) -> bool:
    """Whether removing a block of a list does what silencing it does.

    It does not where something else reads the blocks, too, such as a
    concatenation of all their outputs (but that of a C2f is narrowed).
    """
    block = stage.blocks[0]
    silent, short = deepcopy(model), deepcopy(model)
    for carrier, _ in block.carriers:
        silent.get_submodule(carrier).register_forward_hook(Scale(0.0))
    remove_blocks(short, [block.name])
    try:
        outputs = [
            tensors_of(forward_tensors(m, image)) for m in (silent, short)
        ]
    except Exception:  # whatever a module's code may raise
        return False
    return all(close(a, b, _ROUNDING) for a, b in zip(*outputs))


def _block_runs(
    model: nn.Module, input_size: Tuple[int, ...]
) -> Dict[nn.Module, BlockRun]:
    """Calls of blocks that run once and keep the shape of their input."""
    runs: Dict[nn.Module, Optional[BlockRun]] = {}

    def record(module: nn.Module, args: Tuple[Any, ...], output: Any) -> None:
        fits = (
            module not in runs
            and len(args) > 0
            and isinstance(args[0], Tensor)
            and isinstance(output, Tensor)
            and args[0].shape == output.shape
        )
        runs[module] = (
            BlockRun(module, args[0].clone(), args[1:]) if fits else None
        )

    candidates = [
        child
        for container in model.modules()
        if isinstance(container, (nn.Sequential, nn.ModuleList))
        for child in container.children()
        if _can_be_block(container, child)
    ]
    # Inputs must be cloned before a block changes them in place.
    for module in model.modules():
        if hasattr(module, 'inplace'):
            module.inplace = False
    handles = [c.register_forward_hook(record) for c in candidates]
    forward_tensors(model, demo_tensor(model, input_size))
    for handle in handles:
        handle.remove()
    return {m: run for m, run in runs.items() if run is not None}


def _can_be_block(container: nn.Module, child: nn.Module) -> bool:
    """Whether a child may be a block: it has parts of its own.

    A list of ``Sequential`` is a list of stages, not of blocks.
    """
    if isinstance(container, nn.ModuleList):
        if isinstance(child, (nn.Sequential, nn.ModuleList)):
            return False
    return any(True for _ in child.children())


def _stage_ends(
    model: nn.Module, name: str, container: nn.Module
) -> Tuple[int, ...]:
    """Indices of the blocks of a list after which a stage ends."""
    if isinstance(container, nn.Sequential):
        return ()
    owner = model.get_submodule(name.rpartition('.')[0])
    ends = getattr(owner, 'out_indices', None) or ()
    return tuple(i for i in ends if isinstance(i, int))


def _stages_of(
    name: str,
    container: nn.Module,
    runs: Dict[nn.Module, BlockRun],
    ends: Tuple[int, ...],
) -> List[ResidualStage]:
    """Series of removable blocks in one container."""
    series: List[List[ResidualBlock]] = [[]]
    previous: Optional[BlockRun] = None
    for index, (child_name, child) in enumerate(container.named_children()):
        run = runs.get(child)
        block = None
        if run is not None:
            block = residual_block(f'{name}.{child_name}', run)
        if block is None or index - 1 in ends or not _follows(previous, run):
            series.append([])
        if block is not None:
            series[-1].append(block)
        previous = run
    series = [blocks for blocks in series if blocks]
    fixed = len(container) - sum(len(blocks) for blocks in series)
    if isinstance(container, nn.ModuleList):
        fixed = 0  # a list is never emptied, whoever iterates over it
    if len(series) == 1:
        return [ResidualStage(name, tuple(series[0]), fixed)]
    return [ResidualStage(part[0].name, tuple(part), fixed) for part in series]


def _follows(previous: Optional[BlockRun], run: Optional[BlockRun]) -> bool:
    """Whether a block's input is the output of the block before."""
    if previous is None or run is None:
        return True
    return close(previous.output({}), run.x)
