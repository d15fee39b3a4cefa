"""Ask for the numbers of channels in mmrazor's graph once, not 2^n times.

Symptom: tracing a network whose branches meet again and again (Conformer,
ShuffleNetV2) does not end. A node of mmrazor's channel graph that has no
number of channels of its own asks the nodes before it, each time anew, and
each of them asks those before it: twice the work at every joint.
Seen with: mmrazor 1.0.0.
Drop when: ``ChannelNode`` remembers ``in_channels`` and ``out_channels``.
"""

from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from typing import Any, Callable, Dict, Iterator, Tuple

Known = Dict[Tuple[int, str], Tuple[Any, int]]
"""(id of a node, property) → (the node, which keeps its id, the number)."""

_GRAPHS = 'mmrazor.structures.graph'


@contextmanager
def remembered_channel_numbers() -> Iterator[None]:
    """Within, nodes remember their numbers until a graph is changed."""
    # Not before it is used: importing this must not import mmrazor.
    graph = import_module(f'{_GRAPHS}.base_graph').BaseGraph
    node = import_module(f'{_GRAPHS}.channel_nodes').ChannelNode
    known: Known = {}
    patches = [
        (node, 'in_channels', _remembering),
        (node, 'out_channels', _remembering),
        (graph, 'connect', _forgetting),
        (graph, 'disconnect', _forgetting),
    ]
    stock = [(owner, name, owner.__dict__[name]) for owner, name, _ in patches]
    for owner, name, change in patches:
        setattr(owner, name, change(owner.__dict__[name], name, known))
    try:
        yield
    finally:
        for owner, name, attribute in stock:
            setattr(owner, name, attribute)


def _remembering(stock: property, name: str, known: Known) -> property:
    """The property, computed once for each node."""

    def number(node: Any) -> int:
        key = (id(node), name)
        if key not in known:
            known[key] = (node, stock.fget(node))
        return known[key][1]

    return property(number)


def _forgetting(
    stock: Callable[..., Any], name: str, known: Known
) -> Callable[..., Any]:
    """The method; other nodes may have other numbers afterwards."""

    @wraps(stock)
    def change(*args: Any) -> Any:
        known.clear()
        return stock(*args)

    return change
