"""Blocks in lists: found by name, removed from their containers.

A list is a container, or a list of names of a module's own children, as
mmpretrain's MobileNetV3 has it: ``layer0``, ``layer1``, … with
``self.layers = ['layer0', 'layer1', …]``.
"""

from typing import Dict, List, NamedTuple, Sequence, Tuple

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


class BlockContainer(NamedTuple):
    """Modules that may be blocks, in the order of their calls.

    Attributes:
        name (str): What a stage of all of them is called.
        prefix (str): Full name of the module whose children they are.
        blocks (tuple): (name there, module).
        ends (tuple[int, ...]): Indices after which a stage ends, as the
            model hands out the feature map there.
        kind (type): ``nn.Sequential``, which calls them itself,
            ``nn.ModuleList``, whose owner does, or ``list``: attributes of
            the owner, which keeps their names.
    """

    name: str
    prefix: str
    blocks: Tuple[Tuple[str, nn.Module], ...]
    ends: Tuple[int, ...]
    kind: type

    @property
    def candidates(self) -> List[nn.Module]:
        """Children that may be blocks: they have parts of their own.

        A list of ``Sequential`` is a list of stages, not of blocks.
        """
        return [
            block
            for _, block in self.blocks
            if any(True for _ in block.children())
            and not (
                self.kind is not nn.Sequential
                and isinstance(block, (nn.Sequential, nn.ModuleList))
            )
        ]

    def full_name(self, child: str) -> str:
        """Name of a child in the whole model."""
        return f'{self.prefix}.{child}' if self.prefix else child


def block_containers(model: nn.Module) -> List[BlockContainer]:
    """All containers of a model, in the order of its modules."""
    found = []
    for name, module in model.named_modules():
        for kind in (nn.Sequential, nn.ModuleList):
            if isinstance(module, kind):
                children = tuple(module.named_children())
                owner = model.get_submodule(name.rpartition('.')[0])
                ends = () if kind is nn.Sequential else _ends(owner)
                label = name or type(module).__name__  # the model itself
                found.append(BlockContainer(label, name, children, ends, kind))
        for key, names in named_lists(module).items():
            children = tuple((n, module._modules[n]) for n in names)
            label = f'{name}.{key}' if name else key
            found.append(
                BlockContainer(label, name, children, _ends(module), list)
            )
    return found


def _ends(owner: nn.Module) -> Tuple[int, ...]:
    """Indices of blocks whose outputs a model hands out."""
    ends = getattr(owner, 'out_indices', None) or ()
    return tuple(i for i in ends if isinstance(i, int))


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
