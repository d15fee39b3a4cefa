"""Linear layers that alone read a layer norm."""

from collections import Counter
from typing import Dict, Optional

from torch import fx, nn

from dms_mmrazor.graph.fx_values import BEHIND_PADDING


def find_norm_readers(trace: fx.Graph, model: nn.Module) -> Dict[str, str]:
    """Layer norms whose output goes to one linear layer and nowhere else.

    Both are called once, and the block that owns the norm owns the layer:
    what leaves a block may be read where the trace does not go, such as in
    the loss. Zeros that a module pads with would be shifted, too.

    Args:
        trace (fx.Graph): Trace of the model; attentions in it are opened.
        model (nn.Module): The model.

    Returns:
        dict[str, str]: Name of a norm → name of its linear layer.
    """
    modules = dict(model.named_modules())
    calls = [
        node
        for node in trace.nodes
        if node.op == 'call_module' and node.target in modules
    ]
    times = Counter(modules[node.target] for node in calls)
    readers = {}
    for node in calls:
        norm = modules[node.target]
        reader = _only_reader(node)
        if not isinstance(norm, nn.LayerNorm) or reader is None:
            continue
        layer = modules.get(reader.target)
        owner = node.target.rpartition('.')[0]
        inside = not owner or reader.target.startswith(f'{owner}.')
        once = times[norm] == times[layer] == 1
        if isinstance(layer, nn.Linear) and inside and once:
            readers[node.target] = reader.target
    return readers


def _only_reader(node: fx.Node) -> Optional[fx.Node]:
    """The call of a module that alone reads a node, as it is."""
    if len(node.users) != 1:
        return None
    (reader,) = node.users
    if reader.op != 'call_module' or reader.meta.get(BEHIND_PADDING):
        return None
    return reader
