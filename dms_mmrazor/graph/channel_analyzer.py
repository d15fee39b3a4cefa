"""Channel dependencies of a plain model, and why some are not searched."""

import logging
from collections import Counter
from contextlib import contextmanager
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import torch
from mmengine.logging import MMLogger
from mmengine.model.utils import revert_sync_batchnorm
from mmrazor.models.task_modules.tracer import ChannelAnalyzer
from mmrazor.structures.graph.channel_graph import ChannelGraph
from torch import fx, nn

from dms_mmrazor.errors import DMSError, did_you_mean, raise_device_error
from dms_mmrazor.graph.channel_graph import (
    build_channel_graph,
    leaf_types,
    source_files,
)
from dms_mmrazor.graph.channel_groups import (
    ChannelGroup,
    groups_of,
    position_group,
)
from dms_mmrazor.graph.channel_nodes import LinearChannelNode
from dms_mmrazor.graph.channel_sets import tied_groups
from dms_mmrazor.graph.demo import (
    DemoInput,
    check_input,
    demo_tensor,
    forward_tensors,
    limit_sides,
    with_tensor_forward,
)
from dms_mmrazor.graph.demo_tracer import DemoTracer
from dms_mmrazor.graph.example_inputs import (
    KEY,
    ExampleInputs,
    with_flat_forward,
)
from dms_mmrazor.graph.light_copy import light_copy
from dms_mmrazor.graph.node_values import (
    BEHIND_PADDING,
    split_inputs,
)
from dms_mmrazor.graph.reached_layers import LostLayersError, check_reached
from dms_mmrazor.graph.recorder import record
from dms_mmrazor.graph.running import one_line
from dms_mmrazor.graph.training_pass import (
    TrainingLayers,
    follow_training,
)
from dms_mmrazor.registry import TASK_UTILS

_ENOUGH = 256
"""Side of an image on which usual networks do all that they do."""


class TracingError(DMSError):
    """The tracer cannot follow a model at all."""


@TASK_UTILS.register_module()
class DMSChannelAnalyzer(ChannelAnalyzer):
    """mmrazor's tracer, but nothing that it finds is dropped silently.

    The stock analyzer tries random widths and removes the groups that fail
    without a word; here every group keeps a reason instead, and the result
    is proven by comparing a masked supernet with its exported subnet
    (:meth:`DMSMutator.verify`).

    Args:
        demo_input (tuple | dict | ExampleInputs): Shape (B, C, H, W) of an
            input, the config of one of mmrazor's demo inputs, or what the
            model is called with. Resources are counted for this shape.
            Defaults to (1, 3, 224, 224).
        tracer_type (str): mmrazor's tracer. Defaults to 'FxTracer'.
        passes (Sequence[str]): Modules that give each channel that they
            read, whatever they do with it, and whose own weights do not
            depend on the number of channels. The tracer does not look into
            them. Defaults to ().
        fixed (Sequence[str]): Modules that read and give all of their
            channels; nothing in them is searched. Defaults to ().
        decoder (Mapping, optional): For language models of transformers:
            ``heads`` ('groups', 'queries' or None) and ``embedding``, see
            :class:`DecoderAdapter`. Defaults to None, its defaults.

    Attributes:
        norm_readers (dict[str, str]): Layer norms of the model analyzed last
            that one linear layer alone reads → that layer.
        training (TrainingLayers): Layers of the model analyzed last that
            only its loss runs.
        demo (tuple | ExampleInputs): (B, C, H, W) of the demo input, or
            what the model is called with.
        demo_key (str): Where the user has set it.
        proof_size (tuple | ExampleInputs): (B, C, H, W) of an input on
            which to compare this model with its subnets: at most 256 x 256
            pixels where its code decides nothing by the size, otherwise the
            demo input's.
        asks_for_widths (bool): Whether a condition of this model's code may
            be one on numbers of channels.

    Raises:
        DMSError: If ``demo_input`` is no shape, or ``passes`` or ``fixed``
            no list of names.
    """

    def __init__(
        self,
        demo_input: Any = (1, 3, 224, 224),
        tracer_type: str = 'FxTracer',
        passes: Sequence[str] = (),
        fixed: Sequence[str] = (),
        decoder: Optional[Mapping[str, Any]] = None,
    ) -> None:
        self.demo_key = 'mutator.parse_cfg.demo_input'
        shape, example = demo_input, None
        if isinstance(demo_input, ExampleInputs):
            self.demo_key, example = KEY, demo_input
            shape = tuple(example.tensors[0].shape) or (1,)
        else:
            check_input(self.demo_key, shape)
        super().__init__(demo_input=shape, tracer_type=tracer_type)
        self.demo: DemoInput = example or self.input_size
        self.passes = _names('passes', passes)
        self.fixed = _names('fixed', fixed)
        self.decoder = _settings('decoder', decoder)
        self.norm_readers: Dict[str, str] = {}
        self.proof_size = self.demo
        self.asks_for_widths = False
        self.training = TrainingLayers()

    @property
    def input_size(self) -> Tuple[int, ...]:
        """(B, C, H, W) of the demo input; of an example the first tensor's."""
        return tuple(self.demo_input.input_shape)

    @property
    def shapes(self) -> Union[List[int], Dict[str, List[int]]]:
        """[C, H, W], or the shapes of one example by argument."""
        if isinstance(self.demo, ExampleInputs):
            return self.demo.shapes
        return list(self.input_size[1:])

    def analyze(self, model: nn.Module) -> Dict[str, Dict[str, Any]]:
        """Configs of the searchable groups (mmrazor's interface)."""
        groups = self.analyze_groups(model)
        return {
            group.name: group.config for group in groups if not group.reason
        }

    def analyze_groups(
        self, model: nn.Module, ran: Sequence[str] = ()
    ) -> List[ChannelGroup]:
        """All groups of channels that touch a conv or linear layer.

        Args:
            model (nn.Module): A plain model; it is not changed.
            ran (Sequence[str]): Layers that a run of it has called. If a
                trace with symbols loses some, a run is recorded instead.
                Defaults to (), nothing is known of a run.

        Returns:
            list[ChannelGroup]: In the order of the forward pass.

        Raises:
            TracingError: If the tracer cannot follow the model at all.
        """
        _check_modules('passes', self.passes, model)
        _check_modules('fixed', self.fixed, model)
        self.norm_readers = {}
        self.proof_size = self.demo
        model = revert_sync_batchnorm(light_copy(model))
        model.eval()  # some of mmpretrain's do not return themselves
        with _quiet_mmengine():
            try:
                graph = self._channel_graph(model, ran)
            except Exception as error:  # whatever tracing may raise
                raise_device_error(error)
                raise TracingError(
                    f'{type(model).__name__} cannot be traced by '
                    f'{self.tracer_type}: {one_line(error)}. Name the module '
                    'by `mutator.parse_cfg.fixed` to leave it as it is, or '
                    'tie layers yourself by `mutator.groups`.'
                ) from error
        groups = groups_of(tied_groups(graph.topo_traverse()), model)
        groups += [
            position_group(node.module_name)
            for node in graph
            if isinstance(node, LinearChannelNode) and node.over_positions
        ]
        return self.training.hold(groups, dict(model.named_modules()))

    def _channel_graph(
        self, model: nn.Module, ran: Sequence[str]
    ) -> ChannelGraph:
        """mmrazor's graph of channel dependencies, channels propagated."""
        # Tracing changes its model, and a failed trace leaves it half done.
        plain = light_copy(model)
        tracer = self._tracer(model)
        try:
            trace = self._fx_trace(model, tracer)
            self.asks_for_widths = tracer.asks_for_widths()
            check_reached(trace, model, ran)
            return self._graph_of(trace, model, plain, tracer)
        except Exception as error:  # whatever a model's code may raise
            raise_device_error(error)
            failed = error
        # A trace of one run, where the code cannot be followed with symbols.
        self.proof_size = self.demo
        self.asks_for_widths = True  # who knows
        model = light_copy(plain)
        try:
            image = demo_tensor(model, self.demo)
            leaf = tracer.is_leaf_module
            with torch.no_grad():
                trace = record(model, forward_tensors, image, leaf)
            trace.give_constants(model)
            return self._graph_of(trace, model, plain, tracer)
        except Exception as error:  # the first failure tells more
            raise_device_error(error)
            if isinstance(failed, LostLayersError):
                # What the trace does reach can be searched.
                return self._channel_graph(light_copy(plain), ())
            raise failed from error

    def _tracer(self, model: nn.Module) -> DemoTracer:
        """What traces a model, a throw-away copy; its class may change."""
        leaves = (*self.default_leaf_modules, *leaf_types(model))
        files = source_files(model)
        image = demo_tensor(model, self.demo)
        if isinstance(image, ExampleInputs):
            with_flat_forward(model, image)
        else:
            with_tensor_forward(model, self.input_size)
        return DemoTracer(
            model,
            image,
            opaque=(*self.passes, *self.fixed),
            autowrap_modules=files,
            leaf_module=leaves,
        )

    def _fx_trace(self, model: nn.Module, tracer: DemoTracer) -> fx.Graph:
        """Trace a model with symbols."""
        # mmrazor's method reads it; it would keep this copy of the model.
        self.tracer = tracer
        try:
            if isinstance(self.demo, ExampleInputs):
                return split_inputs(tracer.trace(model))
            trace = super()._fx_trace(model)
        finally:
            self.tracer = None
        small = limit_sides(self.input_size, _ENOUGH)
        if small != self.input_size and tracer.decides_alike(
            demo_tensor(model, small)
        ):
            self.proof_size = small
        return trace

    def _graph_of(
        self,
        trace: fx.Graph,
        model: nn.Module,
        plain: nn.Module,
        tracer: DemoTracer,
    ) -> ChannelGraph:
        """The graph of a trace, and of layers that run only in training."""
        self.training = follow_training(
            trace,
            model,
            plain,
            (self.proof_size, self.demo),
            tracer.is_leaf_module,
        )
        graph = build_channel_graph(
            trace, model, self.demo, self.passes, self.fixed
        )
        self.norm_readers = find_norm_readers(trace, model)
        return graph


def _names(key: str, names: Any) -> Tuple[str, ...]:
    """A list of names of the config."""
    if not isinstance(names, (list, tuple)) or not all(
        isinstance(name, str) for name in names
    ):
        raise DMSError(
            f'`mutator.parse_cfg.{key}` must be a list of names, got '
            f'{names!r}.'
        )
    return tuple(names)


def _settings(key: str, value: Any) -> Dict[str, Any]:
    """Settings by name."""
    if not isinstance(value, (Mapping, type(None))):
        raise DMSError(
            f'`mutator.parse_cfg.{key}` must be a dict, got {value!r}.'
        )
    return dict(value or {})


def _check_modules(key: str, names: Sequence[str], model: nn.Module) -> None:
    """Raise unless the model has these modules."""
    known = [name for name, _ in model.named_modules() if name]
    for name in names:
        if name not in known:
            raise DMSError(
                f'`mutator.parse_cfg.{key}` names {name!r}, which is no '
                f'module.{did_you_mean(name, known)}'
            )


@contextmanager
def _quiet_mmengine() -> Iterator[None]:
    """Silence the tracer's lines per node; reasons are reported instead.

    Of nodes that it adds it warns in words that no user knows.
    """
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


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
