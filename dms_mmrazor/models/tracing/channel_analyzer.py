"""Channel dependencies of a plain model, and why some are not searched."""

import logging
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from mmengine.logging import MMLogger
from mmengine.model.utils import revert_sync_batchnorm
from mmrazor.models.task_modules.tracer import ChannelAnalyzer
from mmrazor.structures.graph.channel_graph import ChannelGraph
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.ops import (
    DYNAMIC_OPS,
    HEADS,
    AttentionDim,
    is_attention,
    named_parts,
)
from dms_mmrazor.models.tracing.channel_graph import (
    build_channel_graph,
    leaf_types,
    source_files,
)
from dms_mmrazor.models.tracing.demo import demo_tensor
from dms_mmrazor.models.tracing.demo_tracer import DemoTracer
from dms_mmrazor.models.tracing.two_stage import with_tensor_forward
from dms_mmrazor.registry import TASK_UTILS

_SINGLE = 'it has a single channel'


class ChannelGroup(NamedTuple):
    """Channels of several layers that can only be kept or removed together.

    Attributes:
        name (str): The layer that produces them first.
        config (dict): As mmrazor's ``ChannelUnit.init_from_cfg`` reads it.
        reason (str): Why the group is not searched; empty if it is.
    """

    name: str
    config: Dict[str, Any]
    reason: str

    @property
    def layers(self) -> List[Tuple[str, bool]]:
        """(layer, is output side) of all layers that the group touches."""
        channels = self.config['channels']
        sides = (('output_related', True), ('input_related', False))
        return [
            (channel['name'], is_output)
            for key, is_output in sides
            for channel in channels[key]
            if isinstance(channel['name'], str)
        ]


@TASK_UTILS.register_module()
class DMSChannelAnalyzer(ChannelAnalyzer):
    """mmrazor's tracer, but nothing that it finds is dropped silently.

    The stock analyzer tries random widths and removes the groups that fail
    without a word; here every group keeps a reason instead, and the result
    is proven by comparing a masked supernet with its exported subnet
    (:meth:`DMSMutator.verify`).

    Args:
        demo_input (tuple | dict): Shape (B, C, H, W) of an input, or the
            config of one of mmrazor's demo inputs. Resources are counted
            for this shape. Defaults to (1, 3, 224, 224).
        tracer_type (str): mmrazor's tracer. Defaults to 'FxTracer'.
    """

    def __init__(
        self,
        demo_input: Any = (1, 3, 224, 224),
        tracer_type: str = 'FxTracer',
    ) -> None:
        super().__init__(demo_input=demo_input, tracer_type=tracer_type)

    @property
    def input_size(self) -> Tuple[int, ...]:
        """(B, C, H, W) of the demo input."""
        return tuple(self.demo_input.input_shape)

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
            DMSError: If the tracer cannot follow the model at all.
        """
        model = revert_sync_batchnorm(deepcopy(model)).eval()
        with _quiet_mmengine():
            try:
                graph = self._channel_graph(model)
            except Exception as error:
                raise DMSError(
                    f'{type(model).__name__} cannot be traced by '
                    f'{self.tracer_type}: {error}. Name the width units in '
                    f'`mutator.channel_unit_cfg.units` instead.'
                ) from error
        modules = dict(model.named_modules())
        configs = graph.generate_units_config().values()
        groups = [
            ChannelGroup('', config, _reason(config, modules))
            for config in configs
            if _weighted_layers(config, modules)
            and not _is_within_attention(config, modules)
        ]
        return _name_groups(groups, modules) + _attention_groups(model)

    def _channel_graph(self, model: nn.Module) -> ChannelGraph:
        """mmrazor's graph of channel dependencies, channels propagated."""
        leaves = (*self.default_leaf_modules, *leaf_types(model))
        self.tracer = DemoTracer(
            demo_tensor(model, self.input_size),
            autowrap_modules=source_files(model),
            leaf_module=leaves,
        )
        model = with_tensor_forward(model, self.input_size)
        trace = self._fx_trace(model)
        return build_channel_graph(trace, model, self.input_size)


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


def _channels(config: Dict[str, Any]) -> List[Dict[str, Any]]:
    channels = config['channels']
    return channels['output_related'] + channels['input_related']


def _weighted_layers(
    config: Dict[str, Any], modules: Dict[str, nn.Module]
) -> List[str]:
    """Names of the conv and linear layers of a group."""
    return [
        channel['name']
        for channel in _channels(config)
        if isinstance(
            modules.get(str(channel['name'])), (nn.Conv2d, nn.Linear)
        )
    ]


def _is_wide(module: nn.LayerNorm) -> bool:
    """Whether statistics run over more than the channels."""
    return len(module.normalized_shape) > 1


def _is_within_attention(
    config: Dict[str, Any], modules: Dict[str, nn.Module]
) -> bool:
    """Whether channels are heads times head dims: these have own groups."""
    names = [str(channel['name']) for channel in _channels(config)]
    return any(
        name in modules and is_attention(modules[name]) for name in names
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
            table = f'{name[: -len(HEADS)]}relative_position_bias_table'
            names += [table] if table in parts else []
        channels = [
            dict(name=n, start=0, end=size, is_output_channel=True)
            for n in names
        ]
        config = dict(
            init_args=dict(num_channels=size),
            channels=dict(output_related=channels, input_related=[]),
        )
        reason = '' if size > 1 else _SINGLE
        groups.append(ChannelGroup(name, config, reason))
    return groups


def _reason(config: Dict[str, Any], modules: Dict[str, nn.Module]) -> str:
    """Why a group of channels cannot be searched; empty if it can."""
    names = [str(channel['name']) for channel in _channels(config)]
    if 'output_placeholder' in names:
        return "its channels are (tied to) the model's output"
    if 'input_placeholder' in names:
        return "its channels are (tied to) the model's input"
    for name in names:
        module = modules.get(name)
        if module is None or not any(True for _ in module.parameters()):
            continue
        if type(module) not in DYNAMIC_OPS and not isinstance(
            module, _BatchNorm
        ):
            return f'{name} is a {type(module).__name__}, not supported'
        if isinstance(module, nn.LayerNorm) and _is_wide(module):
            return f'{name} normalizes several dimensions, not supported'
    channels = config['channels']
    if not _mixing(channels['output_related'], modules):
        return 'no conv or linear layer produces its channels'
    if not _mixing(channels['input_related'], modules):
        return 'no conv or linear layer reads its channels'
    if config['init_args']['num_channels'] < 2:
        return _SINGLE
    return ''


def _mixing(
    channels: List[Dict[str, Any]], modules: Dict[str, nn.Module]
) -> List[str]:
    """Layers of which each output depends on several input channels."""
    names = []
    for channel in channels:
        module = modules.get(str(channel['name']))
        is_conv = isinstance(module, nn.Conv2d)
        if is_conv and module.groups == module.in_channels > 1:
            continue
        if is_conv or isinstance(module, nn.Linear):
            names.append(channel['name'])
    return names


def _name_groups(
    groups: List[ChannelGroup], modules: Dict[str, nn.Module]
) -> List[ChannelGroup]:
    """Name each group after the first layer that produces its channels."""
    named: Dict[str, ChannelGroup] = {}
    for group in groups:
        first = next(
            c for c in _channels(group.config) if str(c['name']) in modules
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
