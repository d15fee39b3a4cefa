"""Features that only a loss combines, such as those of a distillation.

A loss may compare two features channel by channel without any layer of its
own. In evaluation nothing ties them, so the search would narrow each in its
own way, and the exported model could not be trained.
"""

from typing import Callable, Dict, FrozenSet, List, Set, Tuple

from torch import Tensor, fx, nn

from dms_mmrazor.graph.node_values import (
    RECORDED,
)
from dms_mmrazor.graph.recorder import Recording
from dms_mmrazor.layers import channels_of, is_norm, is_weighted

Names = FrozenSet[str]
Sides = List[Tuple[Names, Tuple[int, ...]]]


def compared_layers(
    trace: fx.Graph, recording: Recording, model: nn.Module
) -> List[str]:
    """Layers whose features meet in a recorded pass, but not in a trace.

    Args:
        trace (fx.Graph): Trace of the model in evaluation mode.
        recording (Recording): A training pass.
        model (nn.Module): The traced model.

    Returns:
        list[str]: Names of layers that the trace calls, in no order.
    """
    called = {n.target for n in trace.nodes if n.op == 'call_module'}
    channels = {
        name: channels_of(module, False)
        for name, module in model.named_modules()
        if name in called and (is_weighted(module) or is_norm(module))
    }
    known: Set[Names] = set()
    _visit(trace, channels, lambda _, sides: known.add(_union(sides)))
    found: Set[str] = set()

    def look(node: fx.Node, sides: Sides) -> None:
        several = len({names for names, _ in sides}) > 1
        alike = len({shape for _, shape in sides}) < len(sides)
        fit = all(_has_channels(*side, channels) for side in sides)
        names = _union(sides)
        if several and alike and fit and not any(names <= k for k in known):
            found.update(names)

    _visit(recording, channels, look)
    return sorted(found)


def _visit(
    graph: fx.Graph,
    channels: Dict[str, int],
    look: Callable[[fx.Node, Sides], None],
) -> None:
    """Look at each function of several features: their layers and shapes."""
    sources: Dict[fx.Node, Names] = {}
    for node in graph.nodes:
        if node.op == 'call_module' and node.target in channels:
            sources[node] = frozenset([node.target])
            continue
        read = [n for n in node.all_input_nodes if sources[n]]
        sources[node] = frozenset().union(*(sources[n] for n in read))
        if len(read) > 1 and node.op.startswith('call'):
            look(node, [(sources[n], _shape(n)) for n in read])


def _union(sides: Sides) -> Names:
    return frozenset().union(*(names for names, _ in sides))


def _shape(node: fx.Node) -> Tuple[int, ...]:
    value = node.meta.get(RECORDED)
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _has_channels(
    names: Names, shape: Tuple[int, ...], channels: Dict[str, int]
) -> bool:
    """Whether a dimension may hold the channels, perhaps flattened."""
    return any(
        size and size % channels[name] == 0
        for name in names
        for size in shape[1:]
        if channels[name] > 1
    )
