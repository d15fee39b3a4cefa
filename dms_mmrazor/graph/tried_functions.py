"""What a function does with channels: each by itself, or several together.

Products, softmaxes, sums over channels and whatever else people call are not
read, they are tried: on random numbers, of which one channel at a time is
changed. Where two channels change the same number, they are mixed.
"""

from itertools import combinations
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten

from dms_mmrazor.errors import raise_device_error
from dms_mmrazor.graph.channel_places import channel_numbers
from dms_mmrazor.graph.node_values import (
    DTYPE,
    HAS_CHANNELS,
    SHAPE,
    VALUE,
    Values,
    run_node,
)

_STEP = 30.0
"""What is added to a channel, about: it decides maxima, shows in means."""


class Tried(NamedTuple):
    """What became of the channels of one input.

    Attributes:
        dim (int, optional): The dimension of the output in which they are,
            each by itself; None if they are in several, or in another
            order.
        mixed (bool): Whether a number of the output depends on several.
    """

    dim: Optional[int] = None
    mixed: bool = False


def try_function(
    node: fx.Node, counts: Sequence[Tuple[fx.Node, int]]
) -> Optional[List[Tried]]:
    """Find out what a node does with the channels of its inputs.

    Args:
        node (fx.Node): Calls a function, a method or a module without
            weights.
        counts (Sequence[tuple]): Inputs with channels, and how many.

    Returns:
        list[Tried], optional: For each input; ``None`` if it cannot be run
        on random numbers, or nobody knows where the channels are.
    """
    inputs = _inputs(node)
    if inputs is None:
        return None
    expected = _run(node, inputs)
    if expected is None:
        return None
    found = []
    for source, number in counts:
        tried = _try_one(node, inputs, expected, source, number)
        if tried is None:
            return None
        found.append(tried)
    return found


def _try_one(
    node: fx.Node,
    inputs: Values,
    expected: List[Tensor],
    source: fx.Node,
    number: int,
) -> Optional[Tried]:
    """What it does with the channels of one input; ``None``: nothing."""
    channels = channel_numbers(source, number)
    if channels is None:
        return None
    probes = sorted({0, 1, number // 2, number - 1})
    changes = []
    for probe in probes:
        # Not by the same everywhere, which a softmax over keys hides.
        step = _STEP * (inputs[source] + 0.5)
        changed = inputs[source] + step * (channels == probe)
        given = _run(node, {**inputs, source: changed})
        if given is None or len(given) != len(expected):
            return None
        changes.append(list(map(_differs, given, expected)))
    if not any(bool(part.any()) for parts in changes for part in parts):
        return None
    for one, other in combinations(changes, 2):
        if any(bool((a & b).any()) for a, b in zip(one, other)):
            return Tried(mixed=True)
    return Tried(_dim_of(probes, changes, number))


def _dim_of(
    probes: Sequence[int], changes: Sequence[List[Tensor]], number: int
) -> Optional[int]:
    """The dimension in which each channel has changed its own place."""
    first = changes[0][0]
    for dim in range(first.dim()):
        others = [d for d in range(first.dim()) if d != dim]
        if first.shape[dim] == number and all(
            _places(parts[0], others) == [probe]
            for probe, parts in zip(probes, changes)
        ):
            return dim
    return None


def _places(changed: Tensor, others: List[int]) -> List[int]:
    """Indices in one dimension at which something has changed."""
    for dim in reversed(others):
        changed = changed.any(dim)
    return changed.nonzero().flatten().tolist()


def _differs(given: Tensor, expected: Tensor) -> Tensor:
    if given.shape != expected.shape:
        return torch.ones_like(expected, dtype=torch.bool)
    if not given.is_floating_point():
        return given != expected
    same = torch.isclose(given, expected, 1e-3, 1e-4, equal_nan=True)
    return ~same


def _inputs(node: fx.Node) -> Optional[Values]:
    """Random numbers for tensors, plain values for the rest."""
    generator = torch.Generator().manual_seed(0)
    inputs: Dict[fx.Node, Any] = {}
    for source in node.all_input_nodes:
        shape, dtype = source.meta[SHAPE], source.meta.get(DTYPE)
        if shape is None and VALUE not in source.meta:
            return None
        if shape is None:
            inputs[source] = source.meta[VALUE]
        elif source.meta[HAS_CHANNELS] or dtype.is_floating_point:
            inputs[source] = torch.rand(shape, generator=generator)
        else:  # an index has to be a small one, a mask shall hide nothing
            fill = torch.ones if dtype == torch.bool else torch.zeros
            inputs[source] = fill(shape, dtype=dtype)
    return inputs


def _run(node: fx.Node, inputs: Values) -> Optional[List[Tensor]]:
    """The tensors that it gives; ``None`` if it cannot be run."""
    fresh = {
        source: value.clone() if isinstance(value, Tensor) else value
        for source, value in inputs.items()
    }
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), fresh.get)
    model = node.graph.owning_module or nn.Module()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            given = run_node(node, model, args, kwargs)
    except Exception as error:  # whatever a model's code may raise
        raise_device_error(error)
        return None
    tensors = [t for t in tree_flatten(given)[0] if isinstance(t, Tensor)]
    return [tensor.cpu() for tensor in tensors] or None
