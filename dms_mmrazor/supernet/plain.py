"""Make the plain architecture of a supernet again."""

from typing import Dict

from torch import Tensor, nn

from dms_mmrazor.graph.light_copy import sharing
from dms_mmrazor.layers import DMSOp, revert_sync_norms
from dms_mmrazor.layers.references import model_copy, rebind
from dms_mmrazor.models.units import DepthScaling


def plain_copy(architecture: nn.Module, share: bool = False) -> nn.Module:
    """A copy of a supernet's architecture without masks, everything kept.

    Norms that share statistics over processes become ordinary ones.

    Args:
        architecture (nn.Module): Architecture of a prepared supernet; it is
            not changed.
        share (bool): Let the copy's parameters and buffers have the values
            of the original, not copies of them: for one that is cut, which
            gives it others, or run. Defaults to False.

    Returns:
        nn.Module: Only layers of the architecture's own code.
    """
    memo = sharing(architecture) if share else {}
    memo.update(_computed(architecture))
    plain = model_copy(architecture, memo)
    known: Dict[nn.Module, nn.Module] = {}
    _make_plain(plain, known)
    rebind(plain, {id(old): new for old, new in known.items()})
    revert_sync_norms(plain)
    return plain


def _computed(architecture: nn.Module) -> Dict[int, Tensor]:
    """For a copy: what hooks compute for each pass (weight_norm).

    It belongs to the graph of the last pass and cannot be copied as it is.
    """
    return {
        id(value): value.detach()
        for module in architecture.modules()
        for value in module.__dict__.values()
        if isinstance(value, Tensor) and not value.is_leaf
    }


def _make_plain(
    module: nn.Module, known: Dict[nn.Module, nn.Module]
) -> nn.Module:
    """A module without masks, and its children first, in place.

    Args:
        module (nn.Module): A module.
        known (dict[nn.Module, nn.Module]): What others have become: several
            modules may share one.
    """
    if module in known:
        return known[module]
    for name, child in list(module._modules.items()):
        if child is not None:
            setattr(module, name, _make_plain(child, known))
    for key, hook in list(module._forward_hooks.items()):
        if isinstance(hook, DepthScaling):
            del module._forward_hooks[key]
    plain = module.to_plain_op() if isinstance(module, DMSOp) else module
    known[module] = plain
    return plain
