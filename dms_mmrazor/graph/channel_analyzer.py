"""Channel dependencies of a plain model, and why some are not searched."""

import logging
from contextlib import contextmanager
from difflib import get_close_matches
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

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.channel_graph import (
    build_channel_graph,
    leaf_types,
    source_files,
)
from dms_mmrazor.graph.channel_groups import (
    POSITIONS,
    SINGLE,
    ChannelGroup,
    all_channels,
    reason_against,
)
from dms_mmrazor.graph.channel_nodes import LinearChannelNode
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
from dms_mmrazor.graph.fx_values import split_inputs
from dms_mmrazor.graph.light_copy import light_copy
from dms_mmrazor.graph.norm_readers import find_norm_readers
from dms_mmrazor.graph.recorder import record
from dms_mmrazor.graph.running import one_line, raise_device_error
from dms_mmrazor.graph.training_pass import (
    TrainingLayers,
    follow_training,
)
from dms_mmrazor.layers import (
    HEADS,
    AttentionDim,
    is_weighted,
    named_parts,
)
from dms_mmrazor.layers.attention import attention_kind
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

    def analyze_groups(self, model: nn.Module) -> List[ChannelGroup]:
        """All groups of channels that touch a conv or linear layer.

        Args:
            model (nn.Module): A plain model; it is not changed.

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
                graph = self._channel_graph(model)
            except Exception as error:
                raise TracingError(
                    f'{type(model).__name__} cannot be traced by '
                    f'{self.tracer_type}: {one_line(error)}. Name the module '
                    'by `mutator.parse_cfg.fixed` to leave it as it is, or '
                    'tie layers yourself by `mutator.groups`.'
                ) from error
        modules = dict(model.named_modules())
        configs = graph.generate_units_config().values()
        groups = [
            ChannelGroup('', config, reason_against(config, modules))
            for config in configs
            if _weighted_layers(config, modules)
            and not _is_within_attention(config, modules)
        ]
        groups = _name_groups(groups, modules) + _attention_groups(model)
        groups += _position_groups(graph)
        return self.training.hold(groups, modules)

    def _channel_graph(self, model: nn.Module) -> ChannelGraph:
        """mmrazor's graph of channel dependencies, channels propagated."""
        plain = light_copy(model)
        tracer = self._tracer(model)
        try:
            trace = self._fx_trace(model, tracer)
            return self._graph_of(trace, model, plain, tracer)
        except Exception as error:  # whatever a model's code may raise
            raise_device_error(error)
            failed = error
        # A trace of one run, where the code cannot be followed with symbols.
        self.proof_size = self.demo
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
            close = get_close_matches(name, known, n=3, cutoff=0.0)
            raise DMSError(
                f'`mutator.parse_cfg.{key}` names {name!r}, which is no '
                f'module. Did you mean one of {close}?'
            )


@contextmanager
def _quiet_mmengine() -> Iterator[None]:
    """Silence the tracer's line per node; reasons are reported instead."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _weighted_layers(
    config: Dict[str, Any], modules: Dict[str, nn.Module]
) -> List[str]:
    """Names of the conv and linear layers of a group."""
    return [
        channel['name']
        for channel in all_channels(config)
        if is_weighted(modules.get(str(channel['name'])))
    ]


def _is_within_attention(
    config: Dict[str, Any], modules: Dict[str, nn.Module]
) -> bool:
    """Whether channels are heads times head dims: these have own groups."""
    names = [str(channel['name']) for channel in all_channels(config)]
    return any(
        name in modules and attention_kind(modules[name]) for name in names
    )


def _attention_groups(model: nn.Module) -> List[ChannelGroup]:
    """Heads, q/k dims and v dims of all attentions."""
    groups = []
    parts = named_parts(model)
    for name, part in parts.items():
        if not isinstance(part, AttentionDim):
            continue
        size = part.channels
        names = [name]
        if part.kind == HEADS:
            # Window attention has a table of position biases of each head.
            others = attention_kind(part.module).by_head
            found = [f'{name[: -len(HEADS)]}{other}' for other in others]
            names += [other for other in found if other in parts]
        channels = [
            dict(name=n, start=0, end=size, is_output_channel=True)
            for n in names
        ]
        config = dict(
            init_args=dict(num_channels=size),
            channels=dict(output_related=channels, input_related=[]),
        )
        kind = attention_kind(part.module)
        reason = kind.held(part.module, part.kind) if size > 1 else SINGLE
        groups.append(ChannelGroup(name, config, reason))
    return groups


def _position_groups(graph: ChannelGraph) -> List[ChannelGroup]:
    """What linear layers over positions read and give, for the report."""
    groups = []
    for node in graph:
        if isinstance(node, LinearChannelNode) and node.mixes_positions:
            side = dict(name=node.module_name, start=0, end=1)
            channels = dict(
                output_related=[dict(side, is_output_channel=True)],
                input_related=[dict(side, is_output_channel=False)],
            )
            config = dict(init_args=dict(num_channels=1), channels=channels)
            name = f'{POSITIONS}{node.module_name}'
            reason = 'it mixes the positions of each channel, not channels'
            groups.append(ChannelGroup(name, config, reason))
    return groups


def _name_groups(
    groups: List[ChannelGroup], modules: Dict[str, nn.Module]
) -> List[ChannelGroup]:
    """Name each group after the first layer that produces its channels."""
    named: Dict[str, ChannelGroup] = {}
    for group in groups:
        first = next(
            c for c in all_channels(group.config) if str(c['name']) in modules
        )
        name = first['name']
        if not first['is_output_channel']:
            name = f'input of {name}'
        if name in named:
            name = f'{name}[{first["start"]}:{first["end"]}]'
        while name in named:
            name += "'"
        named[name] = group._replace(name=name)
    return list(named.values())
