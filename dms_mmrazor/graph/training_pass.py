"""Layers that run in training alone, such as auxiliary heads.

What is traced and proven is a pass in evaluation. A layer that only the loss
uses reads features, too: where channels are removed, it must fit them.
"""

from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Sequence,
    Set,
    Tuple,
)

import torch
from mmengine.model import BaseModel
from torch import Tensor, fx, nn

from dms_mmrazor.errors import raise_device_error
from dms_mmrazor.graph.channel_groups import ChannelGroup
from dms_mmrazor.graph.compared_features import compared_layers
from dms_mmrazor.graph.demo import DemoInput
from dms_mmrazor.graph.light_copy import light_copy
from dms_mmrazor.graph.node_values import INPUT
from dms_mmrazor.graph.recorder import Recording, record
from dms_mmrazor.graph.running import one_line
from dms_mmrazor.graph.training_run import training_runs
from dms_mmrazor.layers import channels_of, is_norm, is_weighted


class TrainingLayers(NamedTuple):
    """Layers that the traced pass does not run.

    Attributes:
        names (frozenset[str]): Those that a training pass runs. Defaults to
            none.
        unseen (dict[str, str]): Those that may read any channels → why that
            is not known. Defaults to none.
    """

    names: FrozenSet[str] = frozenset()
    unseen: Mapping[str, str] = {}

    def hold(
        self, groups: List[ChannelGroup], modules: Mapping[str, nn.Module]
    ) -> List[ChannelGroup]:
        """Give groups a reason that they may not or need not be searched.

        Args:
            groups (list[ChannelGroup]): What the tracer found.
            modules (Mapping[str, nn.Module]): The model's.
        """
        given = [_channels_given(group, modules) for group in groups]
        held = []
        for group, layers in zip(groups, given):
            reason = group.reason
            if layers and self.names.issuperset(layers):
                # It costs nothing in use, so nothing decides on it.
                reason = reason or f'{min(layers)} runs only in training'
            for name, why in self.unseen.items():
                read = _read(modules[name])
                known = any(read in other.values() for other in given)
                few = any(size < read for size in layers.values())
                # Or, if none are as many, they may be a part of what it reads.
                if read in layers.values() or (not known and few):
                    reason = reason or f'{name} may read it: {why}'
            held.append(group._replace(reason=reason))
        return held


def follow_training(
    trace: fx.Graph,
    model: nn.Module,
    plain: nn.Module,
    sizes: Sequence[DemoInput],
    is_leaf: Callable[[nn.Module, str], bool],
) -> TrainingLayers:
    """Add the layers that only a training pass runs to a trace, in place.

    Features that only the loss combines are held.

    Args:
        trace (fx.Graph): Trace of the model in evaluation mode.
        model (nn.Module): The traced model, a throw-away copy.
        plain (nn.Module): Another copy.
        sizes (Sequence[tuple | ExampleInputs]): (B, C, H, W) of images to
            train on, or what the model is called with; the first on which
            that works.
        is_leaf (Callable): Whether it is not looked into a module; takes
            the module and its name.
    """
    missing = unreached_layers(trace, model)
    if not missing and not isinstance(model, BaseModel):
        return TrainingLayers()
    weighted = [n for n in missing if _read(model.get_submodule(n))]
    for size in dict.fromkeys(sizes):
        try:
            recording = record_training(light_copy(plain), size, is_leaf)
            break
        except Exception as error:  # whatever a model's code may raise
            raise_device_error(error)
            failed = one_line(error)
    else:
        why = (
            'it does not run in evaluation, and a training pass on made-up '
            f'data fails ({failed}): is `parse_cfg.demo_input` as large as '
            'the images in training?'
        )
        return TrainingLayers(unseen={name: why for name in weighted})
    _hold(trace, compared_layers(trace, recording, model))
    ran = {n.target for n in recording.nodes if n.op == 'call_module'}
    lost = graft(trace, recording, model, ran.intersection(missing))
    why = 'it runs only in training, where it cannot be followed'
    unseen = {name: why for name in weighted if name in lost}
    if isinstance(trace, Recording):
        why = 'whether it runs is decided by values'
        unseen.update({name: why for name in weighted if name not in ran})
    return TrainingLayers(frozenset(ran.intersection(missing)), unseen)


def read_in_training(*features: Tensor) -> Tensor:
    """Stands in a trace for what becomes of features in training alone."""
    return features[0]


def unreached_layers(trace: fx.Graph, model: nn.Module) -> List[str]:
    """Modules with weights of their own that a trace does not run.

    Args:
        trace (fx.Graph): Trace of the model.
        model (nn.Module): The model.
    """
    whole, used = set(), set()
    for node in trace.nodes:
        if node.op == 'call_module':
            whole.add(node.target)
        elif node.op == 'get_attr':  # a parameter, or a module as it is
            whole.add(node.target)
            used.add(node.target.rpartition('.')[0])
    return [
        name
        for name, module in model.named_modules()
        if name
        and any(True for _ in module.parameters(recurse=False))
        and name not in used
        and not whole.intersection(_owners(name))
    ]


def _owners(name: str) -> Iterator[str]:
    """A module's name and those of the modules that it is part of."""
    while name:
        yield name
        name = name.rpartition('.')[0]


def record_training(
    model: nn.Module,
    size: DemoInput,
    is_leaf: Callable[[nn.Module, str], bool],
) -> Recording:
    """Run a training pass and write it down.

    Args:
        model (nn.Module): A throw-away copy.
        size (tuple | ExampleInputs): (B, C, H, W) of the images, or what
            the model is called with.
        is_leaf (Callable): Whether it is not looked into a module.

    Raises:
        Exception: Whatever the model says to data that were made up.
    """
    model.train()
    error: Exception = ValueError('it takes no data')
    for run, inputs in training_runs(model, size):
        try:
            with torch.no_grad(), torch.random.fork_rng():
                return record(model, run, inputs, is_leaf)
        except Exception as failed:  # whatever a model's code may raise
            raise_device_error(failed)
            error = failed
    raise error


def graft(
    trace: fx.Graph, recording: Recording, model: nn.Module, new: Set[str]
) -> Set[str]:
    """Add to a trace what some layers do in a recorded pass, in place.

    What they read is followed back to the layers of the trace. What becomes
    of it all is read by a node of :func:`read_in_training`.

    Args:
        trace (fx.Graph): Trace of the model.
        recording (Recording): Another pass.
        model (nn.Module): The traced model, a throw-away copy.
        new (set[str]): Modules that the trace does not run.

    Returns:
        set[str]: Those of them that run in the recording and read numbers
        of which it is not known where they come from.
    """
    known = {
        node.target: node
        for node in trace.nodes
        if node.op == 'call_module'
        and any(True for _ in model.get_submodule(node.target).parameters())
    }
    given = [node for node in trace.nodes if node.op == 'placeholder']
    inputs = {node.meta.get(INPUT): node for node in given}

    def source(node: fx.Node) -> Any:
        """The node of the trace that stands for one of the recording."""
        if node.op == 'placeholder':
            return inputs.get(node.meta.get(INPUT), given[0])
        return known.get(node.target) if node.op == 'call_module' else None

    wanted, touched = _wanted(recording, new, source)
    lost = {
        node.target
        for node in wanted
        if node.target in new and _reads_unknown(node, recording, source)
    }
    copies: Dict[fx.Node, fx.Node] = {}
    recording.give_constants(model)
    with trace.inserting_before(_output(trace)):
        for node in recording.nodes:
            if node in wanted:
                copies[node] = trace.node_copy(
                    node, lambda n: copies.get(n) or source(n)
                )
        ends = [
            copies[node]
            for node in wanted
            if node in touched
            and not (node.users and wanted.keys() >= node.users.keys())
        ]
    _end(trace, ends)
    return lost


def _output(trace: fx.Graph) -> fx.Node:
    return next(node for node in trace.nodes if node.op == 'output')


def _end(trace: fx.Graph, features: Sequence[fx.Node]) -> None:
    """Let a node of :func:`read_in_training` read features."""
    if features:
        output = _output(trace)
        with trace.inserting_before(output):
            end = trace.call_function(read_in_training, tuple(features))
        output.args = ((output.args[0], end),)


def _hold(trace: fx.Graph, names: Sequence[str]) -> None:
    """Keep the outputs of layers as they are, in place."""
    calls = {n.target: n for n in trace.nodes if n.op == 'call_module'}
    _end(trace, [calls[name] for name in names])


def _wanted(
    recording: Recording, new: Set[str], source: Callable[[fx.Node], Any]
) -> Tuple[Dict[fx.Node, None], Set[fx.Node]]:
    """Nodes of layers and of what they read; those that depend on them."""
    touched: Set[fx.Node] = set()
    waiting: List[fx.Node] = []
    for node in recording.nodes:
        if node.op == 'output':
            continue
        is_new = node.op == 'call_module' and node.target in new
        if is_new or touched.intersection(node.all_input_nodes):
            if source(node) is None:
                touched.add(node)
                waiting += [node] if is_new else []
            else:  # a layer of the trace reads what comes from new ones
                waiting += [n for n in node.all_input_nodes if n in touched]
    wanted: Dict[fx.Node, None] = {}
    while waiting:
        node = waiting.pop()
        if node not in wanted and source(node) is None:
            wanted[node] = None
            waiting += node.all_input_nodes
    return wanted, touched


def _reads_unknown(
    node: fx.Node, recording: Recording, source: Callable[[fx.Node], Any]
) -> bool:
    """Whether what a conv or linear layer reads comes from nowhere."""
    waiting, seen = list(node.all_input_nodes), set()
    while waiting:
        read = waiting.pop()
        if source(read) is not None:
            return False
        if read.op == 'get_attr' and read.target not in recording.constants:
            return False
        if read not in seen:
            seen.add(read)
            waiting += read.all_input_nodes
    return True


def _read(module: nn.Module) -> int:
    """How many channels a layer reads; 0 for other modules."""
    is_layer = is_weighted(module) or is_norm(module)
    return channels_of(module, True) if is_layer else 0


def _channels_given(
    group: ChannelGroup, modules: Mapping[str, nn.Module]
) -> Dict[str, int]:
    """Conv and linear layers that give a group's channels → all of theirs."""
    return {
        layer: channels_of(modules[layer], False)
        for layer, is_output in group.layers
        if is_output and is_weighted(modules.get(layer))
    }
