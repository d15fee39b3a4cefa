"""Blocks in lists: found by name, removed from their containers.

A list is a container, or a list of names of a module's own children, as
mmpretrain's MobileNetV3 has it: ``layer0``, ``layer1``, … with
``self.layers = ['layer0', 'layer1', …]``.
"""

from typing import Dict, List, Sequence

from torch import nn

from dms_mmrazor.layers.block import block_kind_of


def named_lists(owner: nn.Module) -> Dict[str, List[str]]:
    """Lists of names of a module's own children.

    Args:
        owner (nn.Module): Any module.

    Returns:
        dict[str, list[str]]: Attribute → names, at least two different ones.
    """
    found = {}
    for key, value in vars(owner).items():
        # A single name may be anything, the name of a layer's type, say.
        if not isinstance(value, (list, tuple)) or len(value) < 2:
            continue
        if all(isinstance(name, str) for name in value):
            if len(set(value)) == len(value) <= len(owner._modules):
                if all(name in owner._modules for name in value):
                    found[key] = list(value)
    return found


def remove_named(owner: nn.Module, key: str, removed: Sequence[str]) -> None:
    """Take some children out of a list of names.

    The others keep their names, so that a layer of another kind does not
    get the name of a block. In the place of a removed one stays an
    ``nn.Identity``, without any key, for code that counts names up (to
    freeze the first layers, say).

    Args:
        owner (nn.Module): The module; it is changed in place.
        key (str): Attribute with the list of names.
        removed (Sequence[str]): Names of it.
    """
    names = getattr(owner, key)
    left = [name for name in names if name not in removed]
    setattr(owner, key, type(names)(left))
    for name in removed:
        setattr(owner, name, nn.Identity())


def remove_blocks(model: nn.Module, names: Sequence[str]) -> None:
    """Delete blocks from their containers and close the gaps in the keys.

    A model that iterates over a list of blocks by index (a vision
    transformer) hands out feature maps after some of them; its
    ``out_indices`` then name the blocks that are in those places now. In a
    C2f the layer that reads all blocks reads those that are left.

    Args:
        model (nn.Module): A plain model; it is changed in place.
        names (Sequence[str]): Full names of the blocks.
    """
    containers: Dict[str, List[str]] = {}
    for name in names:
        parent, _, child = name.rpartition('.')
        containers.setdefault(parent, []).append(child)
    for parent, removed in containers.items():
        container = model.get_submodule(parent)
        if not isinstance(container, (nn.ModuleList, nn.Sequential)):
            _remove_attributes(container, removed)
            continue
        if isinstance(container, nn.ModuleList):
            owner = model.get_submodule(parent.rpartition('.')[0])
            _move_indices(owner, list(container._modules), removed)
            kind = block_kind_of(owner)
            if kind is not None:
                kind.merge(owner, removed)
        _delete(container, removed)


def _remove_attributes(owner: nn.Module, removed: Sequence[str]) -> None:
    """Remove blocks that a module knows by their names alone."""
    for key, names in named_lists(owner).items():
        if set(removed) <= set(names):
            remove_named(owner, key, removed)
            _move_indices(owner, names, removed)
            return


def _delete(container: nn.Module, removed: Sequence[str]) -> None:
    kept = [
        (name, module)
        for name, module in container.named_children()
        if name not in removed
    ]
    # A list counts its keys up; names of a sequence are its own.
    numbered = all(name.isdigit() for name, _ in kept)
    container._modules.clear()
    for index, (name, module) in enumerate(kept):
        container.add_module(str(index) if numbered else name, module)


def _move_indices(
    owner: nn.Module, names: Sequence[str], removed: Sequence[str]
) -> None:
    """Let a model's indices of blocks and their number follow a removal."""
    kept = [name not in removed for name in names]
    indices = getattr(owner, 'out_indices', None)
    if isinstance(indices, (list, tuple)):
        owner.out_indices = type(indices)(
            sum(kept[: index + 1]) - 1 for index in indices
        )
    if getattr(owner, 'num_layers', None) == len(names):
        owner.num_layers = sum(kept)
