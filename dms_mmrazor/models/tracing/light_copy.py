"""Throw-away copies of a model that take next to no memory."""

from copy import deepcopy

from torch import Tensor, nn


def light_copy(model: nn.Module) -> nn.Module:
    """A copy that shares the large parameters with its original.

    Modules, buffers and the parameters that
    :func:`~dms_mmrazor.models.tracing.demo.enliven` writes to are its own:
    its layers can be replaced, removed and run. Whoever writes to another
    parameter needs ``deepcopy``.

    Args:
        model (nn.Module): Any model.
    """
    shared = {
        id(parameter): parameter
        for parameter in model.parameters()
        if not is_lifeless(parameter)
    }
    return deepcopy(model, shared)


def is_lifeless(parameter: Tensor) -> bool:
    """Whether a parameter of a fresh model tells nothing.

    Vectors (of norms, scales and biases) and constants such as a head that
    is initialized with zeros.
    """
    if parameter.dim() == 1:
        return True
    if parameter.numel() == 0:
        return False
    return bool((parameter == parameter.max()).all())
