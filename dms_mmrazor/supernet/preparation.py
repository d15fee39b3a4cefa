"""What a mutator reads of its config, and finds out of a plain supernet."""

import logging
from typing import (
    Any,
    Dict,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from mmengine.logging import print_log
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import (
    ChannelGroup,
    DMSChannelAnalyzer,
    LayerProfile,
)
from dms_mmrazor.graph.channel_analyzer import TracingError
from dms_mmrazor.graph.declared_groups import ModelAdapter, declare_groups
from dms_mmrazor.graph.example_inputs import KEY, as_example
from dms_mmrazor.graph.layer_profile import uncounted_warning
from dms_mmrazor.graph.model_kind import model_kind_of
from dms_mmrazor.graph.tied_weights import tie_groups
from dms_mmrazor.models.units import DMSChannelUnit, DMSDepthUnit
from dms_mmrazor.supernet.latency_terms import LayerWidths, layer_widths
from dms_mmrazor.supernet.mask_state import MaskState
from dms_mmrazor.supernet.report import LayerReport, report_layers
from dms_mmrazor.supernet.resource_table import ResourceTable
from dms_mmrazor.supernet.resources import build_resource_models
from dms_mmrazor.supernet.searched_sides import SearchedSides
from dms_mmrazor.supernet.structure_writer import StructureWriter
from dms_mmrazor.type_names import type_name

Config = Dict[str, Any]


def check_importance(cfg: Optional[Config]) -> Config:
    """The importance's settings; their values are checked where they act.

    Raises:
        DMSError: If it is no dict of ``metric`` and ``decay``.
    """
    cfg = {} if cfg is None else cfg
    if (
        not isinstance(cfg, dict)
        or set(cfg) - {'metric', 'decay'}
        or not isinstance(cfg.get('decay', 0.99), (int, float))
    ):
        raise DMSError(
            '`mutator.importance` is a dict of `metric` and `decay` (a '
            f'number), got {cfg!r}.'
        )
    return dict(cfg)


def check_exclude(exclude: Any) -> Tuple[str, ...]:
    """Names that are not searched; a single text is no list of them.

    Raises:
        DMSError: If they are no list of names.
    """
    if not isinstance(exclude, (list, tuple)) or not all(
        isinstance(name, str) for name in exclude
    ):
        raise DMSError(
            f'`mutator.exclude` must be a list of names, got {exclude!r}.'
        )
    return tuple(exclude)


def build_analyzer(
    cfg: Union[Config, DMSChannelAnalyzer, None],
) -> DMSChannelAnalyzer:
    """The tracer of a config; mmrazor's own name means ours.

    Raises:
        DMSError: If it is no dict, or of another type.
    """
    if isinstance(cfg, DMSChannelAnalyzer):
        return cfg
    if not isinstance(cfg, (Mapping, type(None))):
        raise DMSError(
            '`mutator.parse_cfg` must be a dict such as '
            f'dict(demo_input=(1, 3, 224, 224)), got {cfg!r}.'
        )
    cfg = dict(cfg or {})
    kind = type_name(cfg)
    if kind not in ('', 'ChannelAnalyzer', 'DMSChannelAnalyzer'):
        raise DMSError(
            f'`mutator.parse_cfg.type` must be DMSChannelAnalyzer, got {kind}.'
        )
    for key in ('type', '_scope_'):
        cfg.pop(key, None)
    return DMSChannelAnalyzer(**cfg)


def mutator_settings(
    model: nn.Module,
    example_inputs: Any,
    settings: Optional[Mapping[str, Any]],
) -> Config:
    """Settings of a mutator whose model is called with an example.

    Args:
        model (nn.Module): A plain model.
        example_inputs (Any): What it is called with: a tensor, positional
            arguments or keyword arguments.
        settings (Mapping, optional): Those of the user.

    Raises:
        DMSError: If the input is no example, the settings are no dict, or
            the model has nothing to search.
    """
    settings = _arguments('mutator', settings)
    demo = demo_of(model, example_inputs)
    if not any(True for _ in model.parameters()):
        raise DMSError(
            f'Search: `model` ({type(model).__name__}) has no parameters.'
        )
    parse_cfg = _arguments('mutator.parse_cfg', settings.get('parse_cfg'))
    analyzer = build_analyzer({**parse_cfg, 'demo_input': demo})
    analyzer.demo_key = KEY  # what the user has written, for messages
    return {**settings, 'parse_cfg': analyzer}


def _arguments(key: str, value: Any) -> Config:
    """Arguments by name.

    Raises:
        DMSError: If they are something else, such as what is made of them.
    """
    if not isinstance(value, (Mapping, type(None))):
        raise DMSError(
            f'Search: `{key}` must be a dict of arguments, such as '
            f"dict(exclude=['head']); got {type(value).__name__}."
        )
    return dict(value or {})


def demo_of(model: nn.Module, example_inputs: Any) -> Any:
    """What a model is run on: its example, or the shape of its images.

    Args:
        model (nn.Module): A plain model.
        example_inputs (Any): What it is called with: a tensor, positional
            arguments or keyword arguments.

    Raises:
        DMSError: If it is no example.
    """
    example_inputs = model_kind_of(model).example(model, example_inputs)
    if isinstance(example_inputs, Tensor) and example_inputs.dim() > 3:
        if not example_inputs.numel():
            raise DMSError(
                f'`{KEY}` has no values, its shape is '
                f'{tuple(example_inputs.shape)}: give one example at least.'
            )
        # A batch of images: its shape is enough, and MACs are of one.
        if example_inputs.is_floating_point():
            return tuple(example_inputs.shape)
    return as_example(example_inputs)


class Description(NamedTuple):
    """A plain supernet in terms of the search's units.

    Attributes:
        resources (ResourceTable): What it costs, and what is kept of it.
        layer_widths (tuple[LayerWidths, ...]): Of what a latency is made.
        layer_reports (tuple[LayerReport, ...]): What is searched of each
            layer, and why the rest is not.
        writer (StructureWriter): Writes choices down.
    """

    resources: ResourceTable
    layer_widths: Tuple[LayerWidths, ...]
    layer_reports: Tuple[LayerReport, ...]
    writer: StructureWriter


def find_groups(
    analyzer: DMSChannelAnalyzer,
    declared: Sequence[Mapping[str, Any]],
    supernet: nn.Module,
    adapter: Optional[ModelAdapter] = None,
    ran: Sequence[str] = (),
) -> Sequence[ChannelGroup]:
    """What the tracer or an adapter finds and what the config declares.

    Args:
        analyzer (DMSChannelAnalyzer): The tracer.
        declared (Sequence[dict]): ``groups`` of :class:`DMSMutator`.
        supernet (nn.Module): A plain model.
        adapter (ModelAdapter, optional): What knows its library; nothing
            is traced then. Defaults to None.
        ran (Sequence[str]): Layers that a run has called, which the tracer
            has to reach. Defaults to ().

    Raises:
        DMSError: If it is a language model that nobody knows, and nothing is
            declared.
        TracingError: If the model cannot be traced and nothing is declared.
    """
    if adapter is not None:
        declared = [*adapter.declarations(), *declared]
        groups = declare_groups((), declared, supernet)
        return [*tie_groups(groups, supernet), *adapter.held()]
    reason = model_kind_of(supernet).untraceable(supernet)
    if reason and not declared:
        raise DMSError(reason)
    try:
        groups = analyzer.analyze_groups(supernet, ran)
    except TracingError as error:
        if not declared:
            raise
        groups = []
        _warn(f'{error} Only `mutator.groups` is searched.')
    return tie_groups(declare_groups(groups, declared, supernet), supernet)


def describe_supernet(
    supernet: nn.Module,
    groups: Sequence[ChannelGroup],
    profiles: Sequence[LayerProfile],
    units: Sequence[DMSChannelUnit],
    stages: Sequence[DMSDepthUnit],
    state: MaskState,
) -> Description:
    """Count a plain model and describe its search space.

    Args:
        supernet (nn.Module): The plain model.
        groups (Sequence[ChannelGroup]): All groups, searched or not.
        profiles (Sequence[LayerProfile]): Layers that cost MACs.
        units (Sequence[DMSChannelUnit]): Width units.
        stages (Sequence[DMSDepthUnit]): Depth units.
        state (MaskState): Their masks.
    """
    sides = SearchedSides(supernet, units, stages)
    models = build_resource_models(sides, profiles)
    return Description(
        ResourceTable(models, state, units, stages),
        layer_widths(sides, profiles),
        report_layers(sides, units, groups),
        StructureWriter(sides, units, stages),
    )


def warn_of_uncounted(
    uncounted: Dict[str, float], counted: float, model: str
) -> None:
    """Tell the user about MACs that are not counted.

    Args:
        uncounted (dict[str, float]): By module.
        counted (float): MACs of all counted layers.
        model (str): What the model itself is called.
    """
    warning = uncounted_warning(uncounted, counted, model)
    if warning:
        _warn(warning)


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)
