"""Where a model keeps blocks that are called one after the other."""

from typing import List, NamedTuple, Tuple

from torch import nn

from dms_mmrazor.layers.block_lists import named_lists


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
