"""A search in a training loop of one's own."""

import logging
from typing import (
    Any,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.optim import Optimizer

from dms_mmrazor.core.durations import Duration
from dms_mmrazor.errors import DMSError, check_flag
from dms_mmrazor.latency import prepare_latency
from dms_mmrazor.layers.references import model_copy
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.search.distillation import (
    Distiller,
    DistillSettings,
)
from dms_mmrazor.search.export import (
    ExportedSubnet,
    export_subnet,
    how_found,
)
from dms_mmrazor.search.export_warnings import (
    NOT_TRACED,
    no_forward,
    unfinished_warning,
    warn_if_far,
    warn_if_loose,
)
from dms_mmrazor.search.loop_arguments import (
    check_metrics,
    check_mutator,
    check_path,
    check_record,
    check_scaler,
    check_state,
)
from dms_mmrazor.search.loop_settings import loop_settings, warn_of_changes
from dms_mmrazor.search.loss_scale import StepCounter, scale_of, step_scale
from dms_mmrazor.search.milestones import (
    Course,
    Milestone,
    as_milestones,
)
from dms_mmrazor.search.phases import Moment, SearchPhases
from dms_mmrazor.search.record import LoopRecorder
from dms_mmrazor.search.structure_search import StructureSearch
from dms_mmrazor.search.targets import (
    Target,
    as_targets,
    as_weights,
    check_counts,
    resolve_targets,
)
from dms_mmrazor.subnet import save_structure
from dms_mmrazor.supernet.plain_model import check_plain, is_sharded
from dms_mmrazor.supernet.preparation import mutator_settings

_STATE = ('mutator', 'structure')


class Search:
    """Finds widths and depths of a model while its user trains it.

    The model becomes a supernet in place: in training its layers see soft
    masks, in evaluation those of what an export now would keep. Call
    :meth:`step` after each step of the optimizer, which trains the weights
    alone::

        search = Search(model, images, {'macs': 0.5}, total_steps=steps)
        for images, labels in loader:
            loss = F.cross_entropy(search.model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            search.step()
        small = search.export('subnet.yaml').model

    Each process of a distributed training makes its own search, before the
    model is wrapped; all of them keep the same structure.

    Attributes:
        model (nn.Module): The supernet.
        mutator (DMSMutator): Its units and stages.
        structure (StructureSearch): What moves them.
        targets (dict[str, float]): Final targets, absolute.
        iteration (int): Steps that were made.
        log (dict): Phase, resources, targets and losses of the last step.

    Args:
        model (nn.Module): Any model.
        example_inputs (Tensor | Sequence | Mapping): What it is called with
            in training: a tensor, positional arguments or keyword
            arguments. MACs are counted on it, for one example where all
            tensors share their first dimension. The values of images
            [B, C, H, W] do not matter.
        target (int | float | str | Mapping): In (0, 1] a ratio of the
            model, otherwise absolute, also as text: '1G'. A mapping sets
            several kinds: {'macs': 0.5, 'params': '10M'}.
        total_steps (int): Optimizer steps of the whole search.
        resource (str): Kind of a single target: 'macs', 'params' or
            'latency'. Defaults to 'macs'.
        loss_weight (float | Mapping): Weights of several kinds against each
            other. Defaults to 1.
        warmup (float | str): How long nothing is constrained: a portion of
            the search or '500 iterations'. Defaults to 0.
        decay (float | str): How long the target falls; the rest refines at
            a constant one. Defaults to 0.8.
        schedule (str): 'exponential' (Eq. 10), 'linear', 'cosine' or
            'constant'. Defaults to 'exponential'.
        hold_depth (bool): Hold the depth while refining. Defaults to True.
        structure_step (Mapping, optional): Arguments of
            :class:`StructureStep`. Defaults to None, its defaults.
        latency_table (str, optional): What ``tools/profile_latency.py`` has
            measured. Defaults to None.
        latency_device (str, optional): Part of the name of the table's
            device, if it is not the one at hand. Defaults to None.
        mutator (Mapping, optional): Further arguments of
            :class:`DMSMutator`, such as ``exclude``. Defaults to None.
        milestones (Sequence, optional): Budgets on the way to the target,
            such as ['75%', '50%']: at each the target stays for ``settle``,
            and then ``log['milestone']`` has its name, 'subnet-75', for
            which :meth:`export` exports. Defaults to None.
        settle (float | str): How long the target stays at each milestone,
            a part of the decay. Defaults to 0.05.
        record (str, optional): Folder in which the search records its
            course and :meth:`export` writes, for
            :func:`dms_mmrazor.write_card`. Defaults to None.
        distill (Mapping, optional): A frozen teacher for :meth:`distill`:
            arguments of :class:`DistillSettings`, such as
            ``dict(temperature=2.0)``. Its ``teacher`` is a model, or None:
            the weights that ``model`` has now. These are copied if some of
            them are trained; if none is, the supernet without masks is the
            teacher and takes no memory. Defaults to None, no teacher.

    Raises:
        DMSError: If an argument cannot be meant, the model cannot be
            searched, or a target not be reached.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        target: Union[Target, Mapping[str, Target]],
        total_steps: int,
        resource: str = 'macs',
        loss_weight: Union[float, Mapping[str, float]] = 1.0,
        warmup: Duration = 0.0,
        decay: Duration = 0.8,
        schedule: str = 'exponential',
        hold_depth: bool = True,
        structure_step: Optional[Mapping[str, Any]] = None,
        latency_table: Optional[str] = None,
        latency_device: Optional[str] = None,
        mutator: Optional[Mapping[str, Any]] = None,
        milestones: Optional[Sequence[Any]] = None,
        settle: Duration = 0.05,
        record: Optional[str] = None,
        distill: Optional[Mapping[str, Any]] = None,
    ) -> None:
        check_plain(model)
        check_counts('Search', total_steps=total_steps)
        check_flag('Search.hold_depth', hold_depth)
        folder = check_record(record)
        mutator = check_mutator(mutator)
        wanted = as_targets(target, resource, 'Search')
        course = Course(
            owner='Search',
            warmup=warmup,
            decay=decay,
            schedule=schedule,
            milestones=as_milestones(milestones, wanted, 'Search'),
            settle=settle,
        ).check()
        weights = as_weights(loss_weight, wanted, 'Search')
        self.model = model
        # A copy for a teacher has to be made while the model is plain.
        self.distiller, self.teacher = _teacher_of(model, distill)
        settings = mutator_settings(model, example_inputs, mutator)
        self.mutator = DMSMutator(**settings)
        self.mutator.prepare_from_supernet(model)
        self.mutator.restore_masks(model)
        # A latency is no resource before a table has said what layers take.
        prepare_latency(
            self.mutator, wanted, latency_table, latency_device, 'Search'
        )
        self.targets = resolve_targets(self.mutator, wanted, 1, 'Search')
        self.structure = StructureSearch(self.mutator, structure_step, model)
        self.structure.set_constraints(weights)
        self.structure.step.set_length(total_steps)
        self.total_steps = total_steps
        self.iteration = 0
        self.log: Dict[str, Any] = {}
        self._wanted = wanted
        self._settings = loop_settings(course, wanted, total_steps, hold_depth)
        self._evaluated = False
        self._scaler: Any = None
        self._steps: Optional[StepCounter] = None
        self._scale: Optional[Tensor] = None
        path = course.path(self.mutator, self.targets, total_steps)
        self._phases = SearchPhases(
            self.mutator, self.structure, path, hold_depth
        )
        self._moment: Optional[Moment] = None
        self._due: Optional[Milestone] = None
        self._recorder: Optional[LoopRecorder] = None
        if folder is not None:
            self._recorder = LoopRecorder(
                folder, total_steps, self.mutator, self.structure, path
            )
        self._teaching = False
        self._hook = model.register_forward_pre_hook(self._begin_forward)

    @property
    def architecture(self) -> nn.Module:
        """The supernet, under the name that an algorithm has for it."""
        return self.model

    def use_scaler(self, scaler: Any, optimizer: Optimizer) -> None:
        """Let the search know the loss scaler of mixed precision.

        Steps that the scaler skips then do not count for the structure
        either, and the scale does not count for the importances.

        Args:
            scaler (GradScaler): ``scaler.update()`` comes before
                :meth:`step`.
            optimizer (Optimizer): What it steps.

        Raises:
            DMSError: If they are something else.
        """
        check_scaler(scaler, optimizer)
        self._scaler = scaler
        self._steps = StepCounter(optimizer)

    def step(self) -> Dict[str, Any]:
        """Move the structure; call after each step of the optimizer.

        Returns:
            dict: :attr:`log`: ``phase``, ``progress`` in it, for each kind
            of resource ``{kind}_ratio``, ``{kind}_target`` (relative to
            the model) and ``loss_{kind}`` as tensors, ``news`` if the
            depth begins to be held, and ``milestone``, its name, if one is
            to be exported now.

        Raises:
            DMSError: If no forward and backward pass in training mode
                precedes, or the search is over.
        """
        if self._moment is None:
            raise DMSError(no_forward(self.total_steps, self._evaluated))
        if not self.mutator.masks.has_gradient:
            raise DMSError(
                'Search: `step()` needs `loss.backward()` before it; no '
                'gradient has reached the masks since the last step.'
            )
        after = None
        if self._scaler is not None:
            after = scale_of(self._scaler, self.mutator.topk.importance)
        skipped = self._steps is not None and self._steps.skipped()
        losses = self.structure.losses()
        self.structure.finish(step_scale(self._scale, after, skipped))
        phase, _, news, due = self._moment
        self.log = {
            'phase': phase.name,
            'progress': phase.progress,
            **losses,
            **({'news': news} if news else {}),
            **({'milestone': due.name} if due else {}),
        }
        self._due = due
        self.iteration += 1
        if self._recorder is not None:
            self._recorder.after(self.iteration, phase.name)
        self._moment, self._evaluated = None, False
        return self.log

    def distill(
        self,
        *args: Any,
        student: Optional[nn.Module] = None,
        where: Optional[Tensor] = None,
        **kwargs: Any,
    ) -> Tuple[Any, Tensor]:
        """Run the supernet, and the teacher on the same batch.

        Args:
            *args: What the model is called with.
            student (nn.Module, optional): The model as a distributed
                training has wrapped it. Defaults to None.
            where (Tensor, optional): bool: positions that count, such as
                the attention mask of a padded batch. Defaults to None, all.
            **kwargs: What the model is called with.

        Returns:
            tuple: What the model gave, and the distillation loss, 0-dim,
            weighted by ``weight`` and ``hidden_weight``; the task's loss is
            the caller's to add.

        Raises:
            DMSError: If the search was made without ``distill``.
        """
        if self.distiller is None:
            raise DMSError(
                'Search: `distill()` needs a teacher: make the search with '
                '`distill=dict(temperature=2.0)`.'
            )

        def run(model: nn.Module) -> None:
            model(*args, **kwargs)

        if self.teacher is not None:
            self.teacher.to(next(self.model.parameters()).device)
        # A supernet that is its own teacher runs without masks.
        self._teaching = self.teacher is None
        try:
            targets = self.distiller.teach(
                self.teacher, self.model, self.mutator.masks, run
            )
        finally:
            self._teaching = False
        with self.distiller.watching(self.model) as outputs:
            output = (student or self.model)(*args, **kwargs)
        losses = self.distiller.loss(outputs, targets, where)
        return output, sum(losses.values())

    def report(self) -> str:
        """What is searched, what is held and why, as a table."""
        return str(self.mutator.report())

    def resources(self) -> Dict[str, float]:
        """Resources of what an export now would keep, absolute."""
        return {
            kind: self.mutator.resource(kind)
            for kind in self.mutator.table.full
        }

    def export(
        self,
        path: Optional[str] = None,
        divisor: int = 8,
        metrics: Optional[Mapping[str, float]] = None,
    ) -> ExportedSubnet:
        """Cut what was found out of the supernet, which stays as it is.

        Right after a step whose log names a milestone, the subnet meets
        that; at the end of the search it meets the target.

        A finished search that is away from its target is logged as a
        warning, and so is a subnet that is further below it than promised,
        and one of an unfinished search that has no milestone now.

        Args:
            path (str, optional): Where to write the structure, a YAML file
                for :func:`dms_mmrazor.apply_structure`. Defaults to None.
            divisor (int): Widths are multiples of it, or full. Defaults to
                8; 1 is the paper's setting.
            metrics (Mapping, optional): Scores to be recorded with it.
                Defaults to None.

        Returns:
            ExportedSubnet: ``model`` is plain, with the supernet's weights,
            on the CPU.

        Raises:
            DMSError: If no such widths reach the targets, the model is
                sharded, or an argument cannot be meant.
        """
        check_counts('Search', divisor=divisor)
        metrics = check_metrics('Search.export', metrics)
        if path is not None:
            path = check_path(path)
        if is_sharded(self.model):
            raise DMSError(
                'Search: `model` is sharded by `fully_shard`: load its whole '
                'weights and the state of this search into a search of a '
                'model that is not, and export that one (docs/recipes.md, '
                '"Sharded weights").'
            )
        # An unfinished search is not cut down to its final target.
        over = self.iteration >= self.total_steps
        targets = self.targets if over else {}
        if self._due is not None:
            targets = self._due.targets
        # The subnet is a copy, and is compared with masks of its own.
        self._hook.remove()
        try:
            subnet = export_subnet(
                self,
                targets,
                divisor,
                how_found(self._wanted, self.iteration),
            )
        finally:
            self._hook = self.model.register_forward_pre_hook(
                self._begin_forward
            )
        if path is not None:
            save_structure(subnet.structure, path)
        if self._recorder is not None and targets:
            name = self._due.name if self._due is not None else 'subnet'
            self._recorder.exported(
                name, self.iteration, subnet.structure, metrics
            )
        self._warn(subnet, divisor)
        return subnet

    def note(self, metrics: Mapping[str, float]) -> None:
        """Record scores of the present supernet, for the card.

        Args:
            metrics (Mapping): Numbers by name: {'accuracy': 0.75}.

        Raises:
            DMSError: If they are no numbers, or the search has no
                ``record``.
        """
        metrics = check_metrics('Search.note', metrics)
        if self._recorder is None:
            raise DMSError(
                f'Search.note: {metrics} would be lost, the search has no '
                "record: make it with `record='work_dirs/search'`."
            )
        self._recorder.score(self.iteration, metrics)

    def _warn(self, subnet: ExportedSubnet, divisor: int) -> None:
        """Log what a user should know of an exported subnet."""
        warnings: List[str] = []
        if self.iteration >= self.total_steps:
            warnings += warn_if_far(self.mutator, self.targets, 'Search')
            warnings += warn_if_loose(subnet, divisor, 'Search')
        elif self._due is None:
            warnings += [unfinished_warning(self.iteration, self.total_steps)]
        for warning in warnings:
            print_log(warning, logger='current', level=logging.WARNING)

    def state_dict(self) -> Dict[str, Any]:
        """All that a search needs to go on, beside the model's weights.

        Of a teacher it has some numbers, by which another one is recognized.
        """
        parts = {name: getattr(self, name).state_dict() for name in _STATE}
        if self.distiller is not None:
            parts['distill'] = self.distiller.fingerprint(
                self.model, self.teacher
            )
        return {
            'iteration': self.iteration,
            'units': self._units(),
            'settings': self._settings,
            **parts,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another search of the same model has stopped.

        With ``distill`` and no teacher of its own, make the search while
        the model has the weights of the start, which are the teacher; load
        the model's present weights after that.

        Args:
            state (Mapping): What :meth:`state_dict` gave. The weights of
                the model and the optimizer's state are loaded by the user.
                Of other settings, each is logged as a warning.

        Raises:
            DMSError: If it is no such state, of a search of other units,
                or with another teacher.
        """
        check_state(state, ('iteration', 'units', *_STATE), self._units())
        if self.distiller is not None and 'distill' in state:
            self.distiller.check_fingerprint(
                state['distill'], self.model, self.teacher
            )
        # States of earlier versions do not know their settings.
        warn_of_changes(state.get('settings', self._settings), self._settings)
        for name in _STATE:
            getattr(self, name).load_state_dict(state[name])
        self.iteration = int(state['iteration'])
        self._due = self._phases.path.due(self.iteration - 1)
        self._phases.resume()

    def __deepcopy__(self, memo: Dict[int, Any]) -> 'Search':
        """Copies of the model (averages of weights) show the same masks.

        A hook of the model refers to its search, and is copied before the
        layers are.
        """
        masks = self.mutator.masks
        shared = [*self.mutator.modules(), masks.table]
        shared += masks.layers.filled
        memo.update({id(part): part for part in shared})
        return self

    def _units(self) -> List[str]:
        units = self.mutator.searched_units
        sizes = self.mutator.topk.sizes
        return [f'{unit.name}: {n}' for unit, n in zip(units, sizes)]

    def _begin_forward(self, model: nn.Module, inputs: Sequence[Any]) -> None:
        """Show the layers the masks of this pass."""
        if self._teaching:
            return
        if torch.jit.is_tracing():
            raise DMSError(NOT_TRACED)
        self._follow(next(model.parameters()).device)
        if not (model.training and torch.is_grad_enabled()):
            self._evaluated |= torch.is_grad_enabled()
            self.mutator.masks.use_hard_masks()
            return
        if self.iteration >= self.total_steps:
            raise DMSError(
                f'Search: all total_steps={self.total_steps} are made; call '
                '`export()` and train its model.'
            )
        # A step may have several passes (accumulation): the first begins it.
        if self._moment is None:
            self._moment = self._phases.begin(self.iteration)
            if self._scaler is not None:
                like = self.mutator.topk.importance
                self._scale = scale_of(self._scaler, like)
        self.structure.begin()

    def _follow(self, device: torch.device) -> None:
        """Move the masks to where the model has been moved."""
        if device != self.mutator.topk.importance.device:
            self.mutator.to(device)
            self.structure.to(device)


def _teacher_of(
    model: nn.Module, settings: Optional[Mapping[str, Any]]
) -> Tuple[Optional[Distiller], Optional[nn.Module]]:
    """What compares with a teacher, and the teacher if it is a model.

    Args:
        model (nn.Module): Not yet a supernet.
        settings (Mapping, optional): ``distill`` of :class:`Search`.
    """
    if settings is None:
        return None, None
    read = DistillSettings.read(settings, 'distill')
    teacher = read.teacher
    if teacher is None and any(p.requires_grad for p in model.parameters()):
        teacher = model_copy(model)
    if teacher is not None:
        teacher.requires_grad_(False)
    distiller = Distiller(model, read, itself=teacher is None)
    if teacher is not None:
        distiller.check_teacher(teacher, model)
    return distiller, teacher
