"""Norms that share their statistics over processes.

A model may come with them: mmyolo's detectors exchange their norms when they
are built in one of several processes. Tracing, proving and exporting happen
in one process alone, partly on the CPU, where they do not run.
"""

from typing import Dict

from torch import nn

# torch's and mmcv's; the latter needs mmcv's operators to be imported.
_NAME = 'SyncBatchNorm'


def revert_sync_norms(model: nn.Module) -> Dict[str, nn.Module]:
    """Make them ordinary norms with the same tensors, in place.

    Args:
        model (nn.Module): A model for images.

    Returns:
        dict[str, nn.Module]: What was replaced, by name.
    """
    found = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if type(module).__name__ == _NAME
    }
    # A norm under two names stays one.
    new = {id(module): _ordinary(module) for module in found.values()}
    for name, module in found.items():
        _set(model, name, new[id(module)])
    return found


def apply_sync_norms(model: nn.Module, norms: Dict[str, nn.Module]) -> None:
    """Undo :func:`revert_sync_norms`, in place.

    Args:
        model (nn.Module): The model; its layers may have been made dynamic.
        norms (dict[str, nn.Module]): What that function returned.
    """
    for name, norm in norms.items():
        _share_tensors(model.get_submodule(name), norm)
        _set(model, name, norm)


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition('.')
    setattr(model.get_submodule(parent), child, module)


def _ordinary(norm: nn.Module) -> nn.Module:
    new = nn.BatchNorm2d(
        norm.num_features,
        norm.eps,
        norm.momentum,
        norm.affine,
        norm.track_running_stats,
    )
    _share_tensors(norm, new)
    return new.train(norm.training)


def _share_tensors(source: nn.Module, target: nn.Module) -> None:
    for name, tensor in [
        *source.named_parameters(recurse=False),
        *source.named_buffers(recurse=False),
    ]:
        setattr(target, name, tensor)
