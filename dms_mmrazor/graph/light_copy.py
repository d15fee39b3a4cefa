"""Throw-away copies of a model that take next to no memory."""

from typing import Collection, Dict

from torch import Tensor, nn

from dms_mmrazor.layers.references import model_copy


def light_copy(model: nn.Module) -> nn.Module:
    """A copy that shares the large parameters with its original.

    Modules, buffers and the parameters that
    :func:`~dms_mmrazor.graph.demo.enliven` writes to are its own:
    its layers can be replaced, removed and run. Whoever writes to another
    parameter needs ``model_copy``.

    Args:
        model (nn.Module): Any model.
    """
    shared = {
        id(parameter): parameter
        for parameter in model.parameters()
        if not is_lifeless(parameter)
    }
    return model_copy(model, shared)


def cut_copy(model: nn.Module, keep: Collection[nn.Module]) -> nn.Module:
    """A copy to be cut: it owns what cutting writes to, and no more.

    Its parameters are its own, their values those of the original: cutting
    gives a layer new ones, as does a conversion to another type.

    Args:
        model (nn.Module): Any model.
        keep (Collection[nn.Module]): Modules of it that get values of their
            own, as they are written to in place.
    """
    own = {id(p) for module in keep for p in module.parameters()}
    memo: Dict[int, Tensor] = {
        id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad)
        for p in model.parameters()
        if id(p) not in own
    }
    return model_copy(model, memo)


def sharing(model: nn.Module) -> Dict[int, Tensor]:
    """For a copy: tensors of their own with the original's values.

    Args:
        model (nn.Module): Any model.
    """
    memo: Dict[int, Tensor] = {
        id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    memo.update({id(b): b.detach() for b in model.buffers()})
    return memo


def shape_copy(model: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers have shapes, but no values.

    Args:
        model (nn.Module): Any model.
    """
    tensors = [*model.parameters(), *model.buffers()]
    memo = {id(tensor): as_shape(tensor) for tensor in tensors}
    return model_copy(model, memo)


def as_shape(tensor: Tensor) -> Tensor:
    """A tensor of the same shape and type without values."""
    shape = tensor.detach().to('meta')
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(shape, requires_grad=tensor.requires_grad)
    return shape


QUIET = 0.01
"""Norm of a row of weights, which is about 1 in layers that learn."""


def is_lifeless(parameter: Tensor) -> bool:
    """Whether a parameter of a fresh model tells nothing.

    Vectors (of norms, scales and biases), single numbers, constants such as
    a head that is initialized with zeros, and matrices so small, as BEiT's
    head, that what they compute vanishes beside a bias.
    """
    if parameter.dim() <= 1:
        return True
    if parameter.numel() == 0:
        return False
    # The first slice tells it of nearly all that live.
    return _is_dead(parameter[:1]) and _is_dead(parameter)


def _is_dead(part: Tensor) -> bool:
    """Whether rows are constant, or a unit input would leave nothing."""
    if bool((part == part.max()).all()):
        return True
    return bool(part.flatten(1).float().norm(dim=1).max() < QUIET)
