"""The mutator: finds what can be searched and manages the choices."""

import gc
import random
from copy import deepcopy
from functools import partial
from typing import (
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import torch
from mmrazor.models.mutators import ChannelMutator
from torch import Tensor, nn

from dms_mmrazor.core import (
    STATIC_METRICS,
    FlatTopk,
    LatencyFit,
    ResourceModel,
    Term,
)
from dms_mmrazor.errors import DMSError, check_flag
from dms_mmrazor.graph import (
    ChannelGroup,
    DMSChannelAnalyzer,
    ResidualStage,
    find_stages,
)
from dms_mmrazor.graph.declared_groups import ModelAdapter, find_adapter
from dms_mmrazor.graph.layer_profile import macs_by_layer, run_first
from dms_mmrazor.graph.light_copy import light_copy
from dms_mmrazor.layers.linear import move_affines
from dms_mmrazor.layers.references import rebind_replaced
from dms_mmrazor.registry import MODELS
from dms_mmrazor.subnet import Structure
from dms_mmrazor.supernet.choice_space import (
    ChoiceSpace,
    full_choices,
    narrow_choices,
)
from dms_mmrazor.supernet.latency_terms import (
    LayerWidths,
    latency_terms,
)
from dms_mmrazor.supernet.mask_state import MaskState, check_method
from dms_mmrazor.supernet.preparation import (
    build_analyzer,
    check_exclude,
    check_importance,
    describe_supernet,
    find_groups,
    warn_of_uncounted,
)
from dms_mmrazor.supernet.report import (
    LayerReport,
    SearchSpaceReport,
)
from dms_mmrazor.supernet.resource_table import ResourceTable
from dms_mmrazor.supernet.resources import RESOURCES
from dms_mmrazor.supernet.search_space import (
    SearchSpace,
    UnitConfig,
    build_search_space,
    check_names,
    read_depth_cfg,
    read_width_cfg,
    selected_units,
)
from dms_mmrazor.supernet.static_scores import StaticScores
from dms_mmrazor.supernet.structure_writer import StructureWriter
from dms_mmrazor.supernet.verify import (
    TRIALS,
    WIDTH_TRIALS,
    Comparison,
    randomize_units,
    verify_structures,
)

Config = Dict[str, Any]

_UNPREPARED = (
    'the mutator knows no supernet yet: call `prepare_from_supernet` first.'
)


@MODELS.register_module()
class DMSMutator(ChannelMutator):
    """Searches widths and depths of a supernet by differentiable top-k.

    Drop-in for mmrazor's ``ChannelMutator``; choices are numbers of kept
    channels (blocks).

    Args:
        channel_unit_cfg (dict | None | 'default'): ``type``,
            ``default_args`` and ``units`` (name or pattern →
            ``dict(init_args=…)``) of the width units. None: widths are not
            searched. Defaults to dict(type='DMSChannelUnit').
        depth_unit_cfg (dict | None | 'default'): The same for the stages.
            None: depths are not searched. Defaults to
            dict(type='DMSDepthUnit'); for language models of transformers
            to None.
        parse_cfg (dict | DMSChannelAnalyzer): The tracer; a config of
            mmrazor's 'ChannelAnalyzer' is read as 'DMSChannelAnalyzer'.
            Defaults to dict(type='DMSChannelAnalyzer').
        exclude (Sequence[str]): Names or patterns of units, stages or
            layers that are not searched, ``*`` and ``?`` allowed. The name
            of a unit is that of the layer that gives its channels first and
            stands for this unit alone; the name of any other layer for the
            units that it gives, or, as that of a predictor, for those that
            it reads; the name of a block for its stage. Defaults to ().
        importance (dict): ``metric`` and ``decay``, see :class:`MaskState`.
            Defaults to dict(metric='taylor', decay=0.99).
        method (str): How masks are parametrized: 'dms', or, to compare it
            with, 'mes', 'sns' or 'get' (Table 2), or 'minmax', importances
            without Eq. 2 (Table 11). Defaults to 'dms'.
        groups (Sequence[dict]): Channels that are one unit where the tracer
            does not see it: ``dict(outputs=[…], inputs=[…])`` with layers
            (norms, parameters) that give and that read them, or parts of
            their channels: 'layer start:end'. Groups of the tracer that
            these touch become part of the unit. Defaults to ().
        verify (bool): Prove before the search, on a random structure, that
            the masked supernet equals its exported subnet. Defaults to
            True.
        init_cfg (dict, optional): As in mmengine. Defaults to None.
    """

    def __init__(
        self,
        channel_unit_cfg: Union[Config, None, str] = 'default',
        depth_unit_cfg: Union[Config, None, str] = 'default',
        parse_cfg: Union[Config, DMSChannelAnalyzer, None] = None,
        exclude: Sequence[str] = (),
        importance: Optional[Config] = None,
        groups: Sequence[Config] = (),
        verify: bool = True,
        method: str = 'dms',
        init_cfg: Optional[Config] = None,
    ) -> None:
        wants_depth = depth_unit_cfg not in ('default', None)
        if channel_unit_cfg == 'default':
            channel_unit_cfg = dict(type='DMSChannelUnit')
        if depth_unit_cfg == 'default':
            depth_unit_cfg = dict(type='DMSDepthUnit')
        width = read_width_cfg(channel_unit_cfg)
        read_depth_cfg(depth_unit_cfg)
        super().__init__(
            channel_unit_cfg={
                'type': width.unit_class.__name__,
                'default_args': width.default_args,
                'units': width.units,
            },
            parse_cfg=build_analyzer(parse_cfg),
            init_cfg=init_cfg,
        )
        self._wants_depth = wants_depth
        self._search_width = channel_unit_cfg is not None
        self._depth_cfg = depth_unit_cfg
        self._exclude = check_exclude(exclude)
        self._importance = check_importance(importance)
        self._declared = tuple(groups)
        self._method = check_method(method)
        self._verify = check_flag('mutator.verify', verify)
        self._layer_reports: Tuple[LayerReport, ...] = ()
        self.layer_widths: Tuple[LayerWidths, ...] = ()
        self.layer_macs: Dict[str, float] = {}
        self.stage_reasons: Dict[str, str] = {}
        self.depth_units = nn.ModuleList()
        self.masks: Optional[MaskState] = None
        self._scores: Optional[StaticScores] = None
        self.resources: Optional[ResourceTable] = None
        self._write_structure: Optional[StructureWriter] = None
        self._selects: Optional[Callable[[str], Any]] = None

    @property
    def analyzer(self) -> DMSChannelAnalyzer:
        """The tracer."""
        return self.parse_cfg

    @property
    def topk(self) -> FlatTopk:
        """All top-k operators: the width units', then the stages'."""
        return self._state.topk

    @property
    def table(self) -> ResourceTable:
        """Resources of the supernet and of what is kept."""
        if self.resources is None:
            raise DMSError(_UNPREPARED)
        return self.resources

    @property
    def _state(self) -> MaskState:
        if self.masks is None:
            raise DMSError(_UNPREPARED)
        return self.masks

    def prepare_from_supernet(self, supernet: nn.Module) -> None:
        """Trace a plain model and make its layers searchable, in place.

        Args:
            supernet (nn.Module): A plain model.

        Raises:
            DMSError: If the model does not run on the demo input, nothing
                can be searched, a name in the config matches nothing, or
                the masked supernet does not equal its subnets.
        """
        devices = {p.device for p in supernet.parameters() if p.is_cuda}
        # A seeded training draws the same weights and images as without a
        # search, however the supernet is looked at here.
        with torch.random.fork_rng(list(devices)):
            self._prepare(supernet)

    def _prepare(self, supernet: nn.Module) -> None:
        """Find what can be searched, attach masks, prove them."""
        size = self.analyzer.demo
        # Whoever cannot run says so in its own words, not in the tracer's.
        first = run_first(supernet, size, self.analyzer.demo_key)
        adapter = find_adapter(supernet, self.analyzer.decoder)
        groups = find_groups(
            self.analyzer,
            self._declared,
            supernet,
            adapter,
            [layer.name for layer in first.layers],
        )
        gc.collect()  # graphs refer to themselves and to feature maps
        stages = self._find_stages(supernet, adapter)
        space = self._choose_space(supernet, groups, stages)
        self.masks = MaskState(
            self.units,
            self.depth_units,
            **self._importance,
            method=self._method,
        )
        found = describe_supernet(
            supernet,
            space.groups,
            first.layers,
            self.units,
            self.depth_units,
            self._state,
        )
        self.resources = found.resources
        for kind in found.resources.full:
            if RESOURCES[kind].of_input:
                notes = found.resources.notes.setdefault(kind, {})
                notes['input_size'] = self.analyzer.shapes
        macs = macs_by_layer(supernet, first.layers)
        self.layer_macs = {
            layer.name: count for layer, count in zip(first.layers, macs)
        }
        self.layer_widths = found.layer_widths
        self._layer_reports = found.layer_reports
        self._write_structure = found.writer
        warn_of_uncounted(
            first.uncounted, self.table.full['macs'], type(supernet).__name__
        )
        self.to(next(supernet.parameters()).device)
        # What the proof cuts is the model before masks replace its layers.
        plain = light_copy(supernet) if self._verify else None
        before = dict(supernet.named_modules(remove_duplicate=False))
        for unit in self.searched_units:
            unit.prepare_for_pruning(supernet)
        rebind_replaced(supernet, before)
        self._score_weights()
        move_affines(supernet, self.analyzer.norm_readers)
        self._state.plan(supernet)
        if plain is not None:
            self.verify(supernet, plain)

    def __deepcopy__(self, memo: Dict[int, Any]) -> 'DMSMutator':
        """A copy for the same supernet, whose layers are not copied.

        Its units refer to layers. Those that were copied before, as in a
        copy of the whole algorithm, are the layers of the copy.
        """
        for layer in self._layers():
            memo.setdefault(id(layer), layer)
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__(deepcopy(self.__dict__, memo))
        return twin

    def _layers(self) -> List[nn.Module]:
        """Layers of the supernet that the mutator refers to."""
        scored = [] if self._scores is None else self._scores.layers
        return [*scored, *(m for unit in self.units for m in unit.layers)]

    def _find_stages(
        self, supernet: nn.Module, adapter: Optional[ModelAdapter]
    ) -> Sequence[ResidualStage]:
        """Stages of removable blocks, where the config wants depth."""
        if self._depth_cfg is None:
            return []
        if adapter is None:
            return find_stages(supernet, self.analyzer.demo)
        return adapter.stages() if self._wants_depth else []

    def _score_weights(self) -> None:
        """Prepare the scores of a static importance metric."""
        metric = self._state.metric
        if metric in STATIC_METRICS:
            scores = StaticScores(metric, self.units, self.depth_units)
            self._scores = scores.to(self.topk.importance.device)

    def restore_masks(self, supernet: nn.Module) -> None:
        """Repair a prepared supernet whose layers were replaced since."""
        for stage in self.depth_units:
            stage.restore_masks(supernet)

    def _choose_space(
        self,
        supernet: nn.Module,
        groups: Sequence[ChannelGroup],
        stages: Sequence[ResidualStage],
    ) -> SearchSpace:
        """Make the units that the config wants."""
        space = build_search_space(
            supernet,
            groups,
            stages,
            UnitConfig(
                self.unit_class if self._search_width else None,
                self.unit_default_args,
                self.units_cfg,
            ),
            read_depth_cfg(self._depth_cfg),
            self._exclude,
        )
        self.units = nn.ModuleList(space.units)
        self.depth_units = nn.ModuleList(space.stages)
        self.stage_reasons = space.stage_reasons
        self._selects = partial(selected_units, groups=groups, stages=stages)
        self._name2unit = {unit.name: unit for unit in self.searched_units}
        return space

    def verify(self, supernet: nn.Module, plain: nn.Module) -> float:
        """Compare random masked structures with their exported subnets.

        Args:
            supernet (nn.Module): The prepared supernet.
            plain (nn.Module): A plain copy of it; its weights change.

        Returns:
            float: The largest relative difference of their outputs.

        Raises:
            DMSError: If they differ. It names the module where that shows
                and the units to exclude.
        """
        state = deepcopy(self.topk.state_dict())
        analyzer = self.analyzer
        comparison = Comparison(
            supernet, plain, analyzer.demo, analyzer.proof_size
        )
        full = full_choices(self.units, self.depth_units)

        def choose(names: Sequence[str], trial: int) -> Structure:
            randomize_units(self.topk, list(self._name2unit), trial)
            narrow = narrow_choices(self.units, self.depth_units, trial)
            chosen = {name: narrow[name] for name in names}
            self.set_choices({**full, **chosen})
            return self.structure()

        try:
            with comparison.alive():
                trials = WIDTH_TRIALS if analyzer.asks_for_widths else TRIALS
                return verify_structures(
                    comparison, list(full), choose, self._selects, trials
                )
        finally:
            self.topk.load_state_dict(state)
            self._state.use_no_masks()

    # choices, as in mmrazor's ChannelMutator

    @property
    def choice_template(self) -> Dict[str, int]:
        """Current number of kept channels (blocks) by unit (stage)."""
        kept = self.topk.hard_kept().tolist()
        return {u.name: n for u, n in zip(self.searched_units, kept)}

    current_choices = choice_template

    @property
    def searched_units(self) -> List[nn.Module]:
        """Width units, then stages: the order of the top-k operators."""
        return [*self.units, *self.depth_units]

    @property
    def mutable_units(self) -> List[nn.Module]:
        """The searched width units."""
        return list(self.units)

    @property
    def search_groups(self) -> Dict[int, List[nn.Module]]:
        """One group per unit and stage."""
        return {i: [unit] for i, unit in enumerate(self.searched_units)}

    def sample_choices(
        self,
        kind: str = 'random',
        targets: Optional[Mapping[str, float]] = None,
        divisor: int = 1,
        seed: Optional[int] = None,
    ) -> Dict[str, int]:
        """A structure drawn uniformly from those within the targets.

        Args:
            kind (str): 'random', or 'max' and 'min' for the structures that
                keep most and least. Defaults to 'random'.
            targets (Mapping[str, float], optional): Resource kind →
                absolute upper limit. Defaults to None, no limits.
            divisor (int): Widths are multiples of it, or full. Defaults to
                1.
            seed (int, optional): Of what is drawn. Defaults to None, from
                Python's global generator, as mmrazor does.

        Raises:
            DMSError: If the kind is unknown, or no structure meets the
                targets.
        """
        space = ChoiceSpace(self, targets, divisor)
        known = {'max': space.largest, 'min': space.smallest}
        if kind in known:
            return known[kind]
        if kind != 'random':
            raise DMSError(
                f"`kind` must be 'random', 'max' or 'min', got {kind!r}."
            )
        seed = random.getrandbits(64) if seed is None else seed
        return space.sample(random.Random(seed))

    def set_choices(self, choices: Dict[str, Any]) -> None:
        """Choose numbers of kept channels (blocks); masks become hard.

        Raises:
            DMSError: If a name is unknown or a number out of range.
        """
        check_names('choices', list(choices), list(self._name2unit))
        for name, choice in choices.items():
            try:
                self._name2unit[name].current_choice = choice
            except ValueError as error:
                raise DMSError(f'{name}: {error}') from None
        self._state.use_hard_masks()

    # resources and structure

    def resource(self, kind: str, hard: bool = True) -> float:
        """Resource of the current structure.

        Args:
            kind (str): As in ``RESOURCES``: 'macs' (of one image).
            hard (bool): Of what an export now would keep; otherwise of the
                continuous widths and soft depths. Defaults to True.
        """
        if hard:
            return self.table.hard(kind)
        return float(self.table.soft(kind).detach())

    def resource_of(self, kind: str, choices: Mapping[str, int]) -> float:
        """Resource of another structure.

        Args:
            kind (str): As for :meth:`resource`.
            choices (Mapping[str, int]): Kept channels (blocks) of every
                unit (stage).
        """
        kept = [float(choices[unit.name]) for unit in self.units]
        depths = [choices[stage.name] for stage in self.depth_units]
        blocks = self.block_mask(depths)
        return self.table.evaluate(kind, torch.tensor(kept), blocks)

    def set_latency(self, fits: Mapping[str, LatencyFit]) -> None:
        """Make the latency of one forward pass a resource, 'latency'.

        Args:
            fits (Mapping[str, LatencyFit]): By layer, in milliseconds, for
                every layer of ``layer_widths``.
        """
        self.add_resource('latency', latency_terms(self.layer_widths, fits))

    def add_resource(self, kind: str, terms: Sequence[Term]) -> None:
        """Give a resource what it costs, measured on the supernet.

        Args:
            kind (str): A registered kind, see :class:`Resource`.
            terms (Sequence[Term]): Of this supernet's units and blocks.
        """
        blocks = sum(stage.num_blocks for stage in self.depth_units)
        model = ResourceModel(terms, len(self.units), blocks)
        self.table.add(kind, model)

    def divisors(self, divisor: int) -> List[int]:
        """Step of each unit's width: a multiple of its own and of this."""
        return [unit.divisor(divisor) for unit in self.units]

    def block_mask(self, depths: Sequence[int]) -> Tensor:
        """0/1 mask [B] of the most important ``depths[s]`` blocks."""
        names = [stage.name for stage in self.depth_units]
        mask = self.topk_with(dict(zip(names, depths))).hard_mask()
        return mask[self._state.num_channels :].float().cpu()

    def structure(
        self,
        choices: Optional[Dict[str, int]] = None,
        resources: Optional[Config] = None,
        search: Optional[Config] = None,
    ) -> Structure:
        """What an export now keeps.

        Args:
            choices (dict, optional): Other numbers of kept channels
                (blocks), by unit; which ones is decided by importance.
                Defaults to None.
            resources (dict, optional): For the file. Defaults to None.
            search (dict, optional): For the file. Defaults to None.
        """
        if self._write_structure is None:
            raise DMSError(_UNPREPARED)
        topk = self.topk_with(choices or {})
        return self._write_structure(topk, resources, search)

    def topk_with(self, choices: Dict[str, int]) -> FlatTopk:
        """A copy of all operators with other numbers of kept elements."""
        topk = deepcopy(self.topk)
        for index, unit in enumerate(self.searched_units):
            if unit.name in choices:
                topk.set_kept_(index, choices[unit.name])
        return topk

    def static_scores(self) -> Optional[Tensor]:
        """Scores [C] of a static importance metric, else None."""
        return None if self._scores is None else self._scores()

    def report(self) -> SearchSpaceReport:
        """What is searched, what is not and why, and what is reachable."""
        return SearchSpaceReport(
            self._layer_reports,
            tuple((u.name, u.num_channels) for u in self.units),
            tuple((s.name, s.num_blocks) for s in self.depth_units),
            dict(self.stage_reasons),
            {kind: self.table.range(kind) for kind in self.table.models},
        )
