"""Which layers a trace reaches of those that a run has called.

A trace with symbols can end well and still miss a submodule: where its code
cannot be followed, mmrazor's tracer writes down a call of its ``forward``,
with the module itself as a value, and nothing of what is in it.
"""

from typing import List, Sequence, Set

from torch import fx, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.node_values import attribute
from dms_mmrazor.layers import is_weighted


class LostLayersError(DMSError):
    """A trace does not reach layers that a run has called."""


def lost_layers(
    trace: fx.Graph, model: nn.Module, ran: Sequence[str]
) -> List[str]:
    """Layers that a run has called and a trace does not reach.

    Args:
        trace (fx.Graph): Trace of the model.
        model (nn.Module): The model.
        ran (Sequence[str]): Names of what a run has called; parts of an
            attention that are no layers do not count.
    """
    modules = dict(model.named_modules())
    # A module that is not looked into has all that is in it.
    reached: Set[nn.Module] = set()
    for node in trace.nodes:
        if node.op == 'call_module':
            reached.update(modules[node.target].modules())
        if node.op == 'get_attr':
            owner = node.target.rpartition('.')[0]
            value = attribute(model, node.target)
            if owner in modules and not isinstance(value, nn.Module):
                reached.add(modules[owner])
    return [
        name
        for name in ran
        if name in modules
        and is_weighted(modules[name])
        and modules[name] not in reached
    ]


def check_reached(
    trace: fx.Graph, model: nn.Module, ran: Sequence[str]
) -> None:
    """Raise if a trace misses layers.

    Args:
        trace (fx.Graph): Trace of the model.
        model (nn.Module): The model.
        ran (Sequence[str]): As of :func:`lost_layers`.

    Raises:
        LostLayersError: It names the first ones.
    """
    lost = lost_layers(trace, model, ran)
    if lost:
        shown = ', '.join(
            f'`{name or type(model).__name__}`' for name in lost[:3]
        )
        more = f' and {len(lost) - 3} more' if len(lost) > 3 else ''
        raise LostLayersError(
            f'the trace does not reach {shown}{more}, which run'
        )
