"""More blocks in the stages of a plain model."""

import math
from copy import deepcopy
from typing import List, Mapping, NamedTuple, Tuple

from torch import nn

from dms_mmrazor.models.supernet.factors import factors_of
from dms_mmrazor.models.tracing import ResidualStage, find_stages


class _Addition(NamedTuple):
    """Blocks that come behind a block of a container."""

    owner: nn.Module
    container: nn.Module
    last: nn.Module
    blocks: List[nn.Module]


def deepen(
    model: nn.Module,
    factors: Mapping[str, float],
    input_size: Tuple[int, ...],
) -> None:
    """Append copies of its removable blocks to each stage.

    The copies follow the order of the stage's blocks, so that a pattern of
    them (plain and shifted windows) goes on, and have fresh weights. Rates
    that grow from block to block, such as those of stochastic depth, are
    those of the blocks that were copied.

    Args:
        model (nn.Module): A plain model; it is changed in place.
        factors (Mapping[str, float]): Name or pattern of stages → factor
            of the number of their blocks, with the one in front of the
            removable ones; rounded up.
        input_size (tuple): (B, C, H, W) of a demo input.

    Raises:
        DMSError: If a pattern matches no stage or a factor is below 1.
    """
    stages = find_stages(model, input_size)
    names = [stage.name for stage in stages]
    wanted = factors_of('deepen', factors, names, 'stages')
    additions = [
        _addition(model, stage, wanted[stage.name])
        for stage in stages
        if stage.name in wanted
    ]
    for addition in additions:
        _insert(addition)


def _addition(
    model: nn.Module, stage: ResidualStage, factor: float
) -> _Addition:
    size = len(stage.blocks) + (1 if stage.fixed else 0)
    number = math.ceil(size * factor - 1e-9) - size
    blocks = [model.get_submodule(block.name) for block in stage.blocks]
    path = stage.blocks[-1].name.rpartition('.')[0]
    return _Addition(
        model.get_submodule(path.rpartition('.')[0]),
        model.get_submodule(path),
        blocks[-1],
        [_fresh(blocks[i % len(blocks)]) for i in range(number)],
    )


def _fresh(block: nn.Module) -> nn.Module:
    """A copy with weights of its own."""
    copy = deepcopy(block)
    for module in copy.modules():
        if hasattr(module, 'reset_parameters'):
            module.reset_parameters()
    return copy


def _insert(addition: _Addition) -> None:
    """Put blocks into their container and move the keys behind them."""
    children = list(addition.container._modules.items())
    place = [child for _, child in children].index(addition.last)
    name = children[place][0]
    new = [(f'{name}_{i}', b) for i, b in enumerate(addition.blocks, 1)]
    children[place + 1 : place + 1] = new
    numbered = isinstance(addition.container, nn.ModuleList) or name.isdigit()
    addition.container._modules.clear()
    for index, (key, child) in enumerate(children):
        addition.container.add_module(str(index) if numbered else key, child)
    if isinstance(addition.container, nn.ModuleList):
        _move_indices(addition.owner, place, len(new), len(children))


def _move_indices(owner: nn.Module, place: int, new: int, total: int) -> None:
    """Let a model's indices of blocks and their number follow.

    Args:
        owner (nn.Module): The module that has the list of blocks.
        place (int): Index of the block after which blocks were added.
        new (int): How many were.
        total (int): How many blocks there are now.
    """
    indices = getattr(owner, 'out_indices', None)
    if isinstance(indices, (list, tuple)):
        owner.out_indices = type(indices)(
            index + new if index >= place else index for index in indices
        )
    if getattr(owner, 'num_layers', None) == total - new:
        owner.num_layers = total
