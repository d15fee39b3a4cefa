"""Which layers a trace reaches of those that a run has called.

A trace with symbols can end well and still miss a submodule: where its code
cannot be followed, mmrazor's tracer writes down a call of its ``forward``,
with the module itself as a value, and nothing of what is in it.
"""

from typing import List, Sequence, Set

from torch import fx, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.node_values import attribute
from dms_mmrazor.layers import is_weighted, kind_of


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
    called: List[str] = []
    for node in trace.nodes:
        if node.op == 'call_module':
            reached.update(modules[node.target].modules())
        if node.op == 'get_attr':
            owner = node.target.rpartition('.')[0]
            if isinstance(attribute(model, node.target), nn.Module):
                called += [node.target] * _is_called(node)
            elif owner in modules:
                reached.add(modules[owner])
    wanted = [name for name in ran if is_weighted(modules.get(name))]
    # Norms and embeddings of a module whose forward is called count, too.
    inside = [
        f'{name}.{key}'
        for name in called
        for key, part in attribute(model, name).named_modules()
        if key and kind_of(part) is not None and _has_own(part)
    ]
    return [
        name
        for name in dict.fromkeys([*wanted, *inside])
        if modules.get(name) not in {None, *reached}
    ]


def _is_called(node: fx.Node) -> bool:
    """Whether one of its methods is called, which the trace leaves alone."""
    return any(
        user.op == 'call_method' and user.args[:1] == (node,)
        for user in node.users
    )


def _has_own(module: nn.Module) -> bool:
    """Whether a module has parameters that no other one holds."""
    return any(True for _ in module.parameters(recurse=False))


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
    # Who knows of no run has none to compare with.
    lost = lost_layers(trace, model, ran) if ran else []
    if lost:
        shown = ', '.join(
            f'`{name or type(model).__name__}`' for name in lost[:3]
        )
        more = f' and {len(lost) - 3} more' if len(lost) > 3 else ''
        raise LostLayersError(
            f'the trace does not reach {shown}{more}, which run'
        )
