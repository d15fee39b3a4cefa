"""Make the plain architecture of a supernet again."""

from copy import deepcopy
from typing import Dict

from torch import nn

from dms_mmrazor.models.ops import DMSOp, revert_sync_norms
from dms_mmrazor.models.tracing.light_copy import sharing
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
    plain = deepcopy(architecture, sharing(architecture) if share else None)
    layers: Dict[nn.Module, nn.Module] = {}
    for parent in list(plain.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, DMSOp):
                if child not in layers:  # several modules may share it
                    layers[child] = child.to_plain_op()
                setattr(parent, name, layers[child])
        for key, hook in list(parent._forward_hooks.items()):
            if isinstance(hook, DepthScaling):
                del parent._forward_hooks[key]
    revert_sync_norms(plain)
    return plain
