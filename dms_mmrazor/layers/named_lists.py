"""Blocks that are attributes of a model, which keeps a list of their names.

So mmpretrain's MobileNetV3 does: ``layer0``, ``layer1``, … with
``self.layers = ['layer0', 'layer1', …]``.
"""

from typing import Dict, List, Sequence

from torch import nn


def named_lists(owner: nn.Module) -> Dict[str, List[str]]:
    """Lists of names of a module's own children.

    Args:
        owner (nn.Module): Any module.

    Returns:
        dict[str, list[str]]: Attribute → names, at least two different ones.
    """
    found = {}
    for key, value in vars(owner).items():
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
