"""More blocks in the stages of a plain model."""

import math
from copy import deepcopy
from typing import List, Mapping, NamedTuple, Tuple, Union

from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import ResidualStage, find_stages
from dms_mmrazor.layers.block import repeated_slice
from dms_mmrazor.layers.block_lists import named_lists
from dms_mmrazor.models.enlarge.widen import factors_of


class _Addition(NamedTuple):
    """Blocks that come behind the last block of a stage."""

    path: str
    last: nn.Module
    blocks: List[nn.Module]


def deepen(
    model: nn.Module,
    factors: Union[float, Mapping[str, float]],
    input_size: Tuple[int, ...],
) -> None:
    """Append copies of its removable blocks to each stage.

    The copies follow the order of the stage's blocks, so that a pattern of
    them (plain and shifted windows) goes on, and have fresh weights. Rates
    that grow from block to block, such as those of stochastic depth, are
    those of the blocks that were copied.

    Args:
        model (nn.Module): A plain model; it is changed in place.
        factors (float | Mapping[str, float]): Factor of the number of
            blocks of all stages, or name or pattern of stages → factor. The
            block in front of the removable ones counts; the number is
            rounded up.
        input_size (tuple): (B, C, H, W) of a demo input.

    Raises:
        DMSError: If a pattern matches no stage, a factor is below 1, or a
            layer behind the stage reads every single block.
    """
    if not isinstance(factors, Mapping):
        factors = {'*': factors}
    stages = [s for s in find_stages(model, input_size) if s.blocks]
    names = [stage.name for stage in stages]
    wanted = factors_of('deepen', factors, names, 'stages')
    additions = [
        _addition(model, stage, wanted[stage.name])
        for stage in stages
        if stage.name in wanted
    ]
    for path, last, blocks in additions:
        if isinstance(model.get_submodule(path), nn.Sequential):
            _insert(model.get_submodule(path), last, blocks)
        elif isinstance(model.get_submodule(path), nn.ModuleList):
            owner = model.get_submodule(path.rpartition('.')[0])
            place = _insert(model.get_submodule(path), last, blocks)
            total = len(model.get_submodule(path))
            _move_indices(owner, place, len(blocks), total)
        else:
            _insert_named(model.get_submodule(path), last, blocks)


def _addition(
    model: nn.Module, stage: ResidualStage, factor: float
) -> _Addition:
    path = stage.blocks[-1].name.rpartition('.')[0]
    if repeated_slice(model, stage.blocks[-1].name) is not None:
        raise DMSError(
            f'`deepen`: the blocks of {stage.name} are read one by one by '
            'the layer behind them; use the `deepen_factor` of the model.'
        )
    size = len(stage.blocks) + (1 if stage.fixed else 0)
    number = math.ceil(size * factor - 1e-9) - size
    blocks = [model.get_submodule(block.name) for block in stage.blocks]
    new = [_fresh(blocks[i % len(blocks)]) for i in range(number)]
    return _Addition(path, blocks[-1], new)


def _fresh(block: nn.Module) -> nn.Module:
    """A copy with weights of its own."""
    copy = deepcopy(block)
    for module in copy.modules():
        if hasattr(module, 'reset_parameters'):
            module.reset_parameters()
    return copy


def _insert(
    container: nn.Module, last: nn.Module, blocks: List[nn.Module]
) -> int:
    """Put blocks behind another and move the keys of those that follow.

    Returns:
        int: Index of the block that they were put behind.
    """
    children = list(container._modules.items())
    place = [child for _, child in children].index(last)
    name = children[place][0]
    numbered = isinstance(container, nn.ModuleList) or name.isdigit()
    new = [(f'{name}_{i}', block) for i, block in enumerate(blocks, 1)]
    children[place + 1 : place + 1] = new
    container._modules.clear()
    for index, (key, child) in enumerate(children):
        container.add_module(str(index) if numbered else key, child)
    return place


def _insert_named(
    owner: nn.Module, last: nn.Module, blocks: List[nn.Module]
) -> None:
    """Put blocks into the list of names by which their owner calls them."""
    for key, names in named_lists(owner).items():
        found = [i for i, n in enumerate(names) if owner._modules[n] is last]
        if not found:
            continue
        new = [f'{names[found[0]]}_{i}' for i in range(1, len(blocks) + 1)]
        for name, block in zip(new, blocks):
            owner.add_module(name, block)
        names[found[0] + 1 : found[0] + 1] = new
        setattr(owner, key, type(getattr(owner, key))(names))
        _move_indices(owner, found[0], len(new), len(names))


def _move_indices(owner: nn.Module, place: int, new: int, total: int) -> None:
    """Let a model's indices of blocks and their number follow.

    Args:
        owner (nn.Module): The module that calls the blocks.
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
