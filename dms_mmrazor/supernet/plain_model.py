"""What is no plain model, and what its user should search instead."""

from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import UninitializedParameter

from dms_mmrazor.errors import DMSError
from dms_mmrazor.layers.dms_op import DMSOp


def check_plain(model: Any, owner: str = 'Search') -> None:
    """Make sure that a model is one whose layers can be replaced.

    Args:
        model (Any): What the user gave.
        owner (str): Whose ``model`` it is, for messages. Defaults to
            'Search'.

    Raises:
        DMSError: It says what was given, and what to give instead.
    """
    reason = _not_a_module(model) or _wrapped(model) or _unready(model)
    if reason:
        raise DMSError(f'{owner}: `model` {reason}.')


def check_whole(model: Any, owner: str) -> None:
    """Make sure that a model is one that can be cut.

    Args:
        model (Any): What the user gave.
        owner (str): Whose ``model`` it is, for messages.

    Raises:
        DMSError: If it is no module, or a supernet.
    """
    reason = _not_a_module(model) or _searched(model)
    if reason:
        raise DMSError(f'{owner}: `model` {reason}.')


def is_sharded(model: nn.Module) -> bool:
    """Whether each process has but a part of a model's weights."""
    return any(hasattr(p, 'full_tensor') for p in model.parameters())


def _not_a_module(model: Any) -> str:
    """Why it is no module; empty if it is one."""
    if isinstance(model, nn.Module):
        return ''
    if isinstance(model, type):
        return f'is the class {model.__name__}: make one, {model.__name__}(…)'
    return (
        'must be an nn.Module, whose layers can be replaced; got '
        f'{type(model).__name__} (a function can be the `forward` of one)'
    )


def _wrapped(model: nn.Module) -> str:
    """What hides its layers from a search; empty if nothing does."""
    compiled = getattr(model, '_compiled_call_impl', None) is not None
    if compiled or hasattr(model, '_orig_mod'):
        return (
            'is compiled, and its layers are replaced: compile after Search, '
            '`torch.compile(search.model)`'
        )
    if isinstance(model, (DataParallel, DistributedDataParallel)):
        return (
            f'is a {type(model).__name__}: search what it wraps, '
            '`model.module`, and wrap `search.model`'
        )
    for name, module in model.named_modules():
        # torch.jit.ScriptModule; its subclasses are made by torch.jit.trace.
        if hasattr(module, '_c') and hasattr(module, 'inlined_graph'):
            where = f' (`{name}`)' if name else ''
            return (
                f'is made by torch.jit{where}, whose layers cannot be '
                'replaced: search the model that it was made of, and script '
                'the exported one'
            )
    return ''


def _searched(model: nn.Module) -> str:
    """What to say of a supernet; empty if it is none."""
    for name, module in model.named_modules():
        if isinstance(module, DMSOp):
            return (
                f'is searched already (`{name}` is a {type(module).__name__}):'
                ' make a fresh one'
            )
    return ''


def _unready(model: nn.Module) -> str:
    """Why its layers cannot be searched now; empty if they can."""
    searched = _searched(model)
    if searched:
        return f'{searched} for another search'
    if is_sharded(model):
        return (
            'is sharded by `fully_shard`, and its layers are replaced: shard '
            'after Search, `fully_shard(search.model)`'
        )
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            return (
                f'has lazy layers whose `{name}` has no shape yet: run it '
                'once on an example, `model(*example)`, before the search'
            )
        if parameter.is_meta:
            return (
                f'has no values in `{name}`, which is on the device "meta": '
                "make it by `model.to_empty(device='cpu')`, then load or "
                'initialize its weights'
            )
    return ''
