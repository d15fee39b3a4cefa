"""Layers that something else than their module knows, too.

A function that a module holds (``lambda x: m.fc2(m.fc1(x))``), a plain list
or a hook may refer to layers. Where these are replaced or copied, the
references go with them: otherwise a copy would compute with layers of its
original.
"""

from copy import deepcopy
from functools import partial
from types import CellType, FunctionType
from typing import Any, Dict, Mapping, Optional

from torch import nn

_OWN = ('_modules', '_parameters', '_buffers')
_HOLDERS = (FunctionType, partial, list, tuple, dict, nn.Module)
_DEPTH = 3
"""How many containers and functions within one another are looked into."""


def model_copy(
    model: nn.Module, memo: Optional[Dict[int, Any]] = None
) -> nn.Module:
    """``deepcopy`` of a model whose functions refer to the copy.

    Args:
        model (nn.Module): Any model.
        memo (dict, optional): As of ``deepcopy``. Defaults to None.
    """
    memo = {} if memo is None else memo
    copy = deepcopy(model, memo)
    rebind(copy, memo)
    return copy


def rebind(model: nn.Module, twins: Mapping[int, Any]) -> None:
    """Let what modules hold refer to others, in place.

    Args:
        model (nn.Module): Its modules' own children are left alone.
        twins (Mapping[int, Any]): ``id`` of an object → what is meant now.
    """
    for module in model.modules():
        for key, value in list(vars(module).items()):
            if key in _OWN or not isinstance(value, _HOLDERS):
                continue
            found = _rebound(value, twins, _DEPTH)
            if found is not value:
                module.__dict__[key] = found


def rebind_replaced(model: nn.Module, before: Mapping[str, nn.Module]) -> None:
    """Let what modules hold refer to layers that took others' places.

    Args:
        model (nn.Module): Some of its layers have been replaced.
        before (Mapping[str, nn.Module]): Its modules before that, by name.
    """
    now = model.named_modules(remove_duplicate=False)
    pairs = [(before.get(name), module) for name, module in now]
    rebind(model, {id(old): new for old, new in pairs if old is not new})


def _rebound(value: Any, twins: Mapping[int, Any], depth: int) -> Any:
    """A value that refers to others; itself if it refers to none."""
    if isinstance(value, nn.Module):
        return twins.get(id(value), value)
    if not depth:
        return value
    if isinstance(value, FunctionType):
        return _rebound_function(value, twins, depth - 1)
    if isinstance(value, partial):
        parts = (value.func, value.args, value.keywords)
        func, args, keywords = _each(parts, twins, depth - 1)
        same = (func, args, keywords) == parts
        return value if same else partial(func, *args, **keywords)
    if type(value) in (list, tuple):
        return _each(value, twins, depth - 1)
    if isinstance(value, dict):
        old = list(value.values())
        new = _each(old, twins, depth - 1)
        return value if new is old else type(value)(zip(value, new))
    return value


def _each(values: Any, twins: Mapping[int, Any], depth: int) -> Any:
    """A list or tuple of what its values become; itself if they stay."""
    new = [_rebound(value, twins, depth) for value in values]
    same = all(a is b for a, b in zip(new, values))
    return values if same else type(values)(new)


def _is_filled(cell: CellType) -> bool:
    """Whether a variable has a value so far."""
    try:
        return bool((cell.cell_contents,))
    except ValueError:
        return False


def _rebound_function(
    function: FunctionType, twins: Mapping[int, Any], depth: int
) -> FunctionType:
    """The same code with other variables of the code around it."""
    cells = function.__closure__ or ()
    kept = [cell for cell in cells if _is_filled(cell)]
    old = (
        tuple(cell.cell_contents for cell in kept),
        function.__defaults__ or (),
        tuple((function.__kwdefaults__ or {}).values()),
    )
    values, defaults, keywords = new = _each(old, twins, depth + 1)
    if new is old:
        return function
    given = {id(cell): CellType(v) for cell, v in zip(kept, values)}
    closure = tuple(given.get(id(cell), cell) for cell in cells)
    made = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        defaults or None,
        closure or None,
    )
    made.__kwdefaults__ = dict(zip(function.__kwdefaults__ or {}, keywords))
    made.__dict__.update(function.__dict__)
    return made
