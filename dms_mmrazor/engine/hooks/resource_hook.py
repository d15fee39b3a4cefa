"""The resource target of a search: its schedule, its log and its end."""

import os.path as osp
from logging import Logger
from typing import Any, Dict, Mapping, Optional, Sequence, Union

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from dms_mmrazor.core.durations import Duration
from dms_mmrazor.engine.checkpoint_files import state_dict_of
from dms_mmrazor.engine.config_keywords import refuse_unsupported, unknown_key
from dms_mmrazor.engine.runner_access import (
    extent_of,
    get_algorithm,
    grad_scale,
    share_structure,
    structure_steps,
)
from dms_mmrazor.engine.search_log import (
    describe_resources,
    describe_targets,
    report_progress,
    warn_if_idle,
)
from dms_mmrazor.engine.search_settings import (
    KEY,
    report_changes,
    settings_of,
    space_of,
)
from dms_mmrazor.engine.search_watch import (
    SearchWatch,
    export_search,
    validated_score,
)
from dms_mmrazor.errors import DMSError, check_flag
from dms_mmrazor.latency import (
    divisor_warning,
    measured_beside_supernet,
    prepare_latency,
)
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.registry import HOOKS
from dms_mmrazor.search.export import ExportedSubnet
from dms_mmrazor.search.export_warnings import warn_if_far
from dms_mmrazor.search.loss_scale import StepCounter, step_scale
from dms_mmrazor.search.milestones import Course, as_milestones
from dms_mmrazor.search.phases import Moment, SearchPhases
from dms_mmrazor.search.targets import (
    Target,
    as_targets,
    as_weights,
    check_counts,
    resolve_targets,
)
from dms_mmrazor.subnet import Structure
from dms_mmrazor.subnet.foreign_weights import check_search_weights


@HOOKS.register_module()
class ResourceHook(Hook):
    """Leads a search to its resource target and exports what it found.

    The one place in a config where the target is set. Phases of the
    training: *warmup* without a constraint, *decay* of the target
    from the supernet's resource to the final one (Eq. 10), and *refine*
    with the rest, in which the depth is held and widths settle (appendix
    A.1.2). Over the first third of it, blocks that are half kept become
    whole ones or none.

    Args:
        target (int | float | str | dict): In (0, 1] a ratio of the
            supernet, otherwise absolute, also as text: '1G', '300M'. A dict
            sets several kinds together: dict(macs=0.5, params='10M').
            Needed.
        resource (str): Kind of a single target: 'macs', 'params' or
            'latency' ('3ms', or a ratio). Defaults to 'macs'.
        loss_weight (float | dict): Weight λ_r of the resource loss (Table
            15), by kind if a dict. With the rule ``price`` of
            ``model.structure_step`` it only weighs several kinds against
            each other. Defaults to 1.
        warmup (float | str): How long nothing is constrained: a portion of
            the training, '3 epochs' or '500 iterations'. Defaults to 0.
        decay (float | str): How long the target falls, in the same way.
            The rest of the training refines. Defaults to 0.8.
        schedule (str): 'exponential' (Eq. 10), 'linear', 'cosine' or
            'constant'. Defaults to 'exponential'.
        hold_depth (bool): Hold the depth while refining. Defaults to True.
        divisor (int): Exported widths are multiples of it, or full: odd
            widths have the MACs but not the speed. 1 is the paper's
            setting. Defaults to 8.
        interval (int): Iterations between two lines in the log. Defaults
            to 50.
        out_dir (str, optional): Where the subnet is written. Defaults to
            None, ``<work_dir>/subnet``.
        latency_table (str, optional): What ``tools/profile_latency.py`` has
            measured; for a latency target, or to be reported. Defaults to
            None.
        latency_device (str, optional): Part of the name of the table's
            device, if it is not the one at hand. Defaults to None.
        milestones (Sequence, optional): Budgets on the way to the target,
            falling, such as ['75%', '50%']; by kind if the target is. At
            each the target stays for ``settle``, and a plain model is
            exported to ``<work_dir>/subnet-75`` and so on. Defaults to
            None, the target alone.
        settle (float | str): How long the target stays at each milestone,
            a part of ``decay`` in its notation. Defaults to 0.05.

    Raises:
        DMSError: If a setting is missing, unknown or cannot be meant.
    """

    # After the parameter schedulers, before checkpoints are written.
    priority = 'LOW'

    def __init__(
        self,
        target: Union[Target, Mapping[str, Target], None] = None,
        resource: str = 'macs',
        loss_weight: Union[float, Mapping[str, float]] = 1.0,
        warmup: Duration = 0.0,
        decay: Duration = 0.8,
        schedule: str = 'exponential',
        hold_depth: bool = True,
        divisor: int = 8,
        interval: int = 50,
        out_dir: Optional[str] = None,
        latency_table: Optional[str] = None,
        latency_device: Optional[str] = None,
        milestones: Optional[Sequence[Any]] = None,
        settle: Duration = 0.05,
        **unknown: Any,
    ) -> None:
        if unknown:
            key = next(iter(unknown))
            raise unknown_key('custom_hooks', 'ResourceHook', key)
        self.wanted = as_targets(_needed_target(target), resource)
        self.weights = as_weights(loss_weight, self.wanted)
        check_counts(divisor=divisor, interval=interval)
        check_flag('ResourceHook.hold_depth', hold_depth)
        self.course = Course(
            owner='ResourceHook',
            warmup=warmup,
            decay=decay,
            schedule=schedule,
            milestones=as_milestones(milestones, self.wanted),
            settle=settle,
            divisor=divisor,
        ).check()
        self.hold_depth = hold_depth
        self.divisor = divisor
        self.interval = interval
        if not isinstance(out_dir, (str, type(None))):
            raise DMSError(
                f'ResourceHook: `out_dir` must be a folder, got {out_dir!r}.'
            )
        self.out_dir = out_dir
        self.latency_table = latency_table
        self.latency_device = latency_device
        self.targets: Dict[str, float] = {}
        self.current: Dict[str, float] = {}
        self._grad_scale: Optional[Tensor] = None
        self._steps: Optional[StepCounter] = None
        self._phases: Optional[SearchPhases] = None
        self._moment: Optional[Moment] = None
        self._watch: Optional[SearchWatch] = None

    def before_run(self, runner: Runner) -> None:
        """Refuse what cannot work; repair what mmengine has replaced."""
        refuse_unsupported(runner)
        algorithm = get_algorithm(runner)
        algorithm.mutator.restore_masks(algorithm.architecture)
        self.use_latency_table(algorithm, runner.logger)

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: Dict[str, Any]
    ) -> None:
        """Note what is searched, and how."""
        checkpoint[KEY] = {
            'space': space_of(get_algorithm(runner)),
            'settings': settings_of(self, runner, get_algorithm(runner)),
        }

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: Dict[str, Any]
    ) -> None:
        """Say what a resumed search changes; refuse foreign weights.

        Raises:
            DMSError: If the importances belong to other units, or
                `load_from` names weights that a search would not find.
        """
        old = checkpoint.get(KEY)
        if old and runner._resume:
            report_changes(old, self, runner, get_algorithm(runner))
        elif not runner._resume:
            path = str(runner._load_from)
            state = state_dict_of(checkpoint, path)
            check_search_weights(
                get_algorithm(runner), state, 'load_from', path
            )

    def before_train(self, runner: Runner) -> None:
        """Check the target before anything is trained."""
        algorithm = get_algorithm(runner)
        mutator = algorithm.mutator
        runner.logger.info(
            f'Search space:\n{mutator.report()}\n'
            + describe_resources(mutator, self.divisor)
        )
        self.resolve(algorithm)
        runner.logger.info(describe_targets(mutator, self.targets))
        for warning in warn_if_idle(mutator, self.targets):
            runner.logger.warning(warning)
        algorithm.set_constraints(self.weights)
        algorithm.structure.step.set_length(structure_steps(runner))
        runner.logger.info(f'Structure: {algorithm.structure.step}')
        self._steps = StepCounter(runner.optim_wrapper.optimizer)
        share_structure(runner, algorithm)
        path = self.course.path(mutator, self.targets, *extent_of(runner))
        self._phases = SearchPhases(
            mutator, algorithm.structure, path, self.hold_depth
        )
        self._watch = SearchWatch(
            runner,
            algorithm,
            self._phases,
            self._folder(runner),
            self.interval,
        )

    def resolve(self, algorithm: DMSAlgorithm) -> Dict[str, float]:
        """Final targets in absolute numbers.

        Raises:
            DMSError: If one cannot be read or reached.
        """
        self.use_latency_table(algorithm)
        self.targets = resolve_targets(
            algorithm.mutator, self.wanted, self.divisor
        )
        return self.targets

    def use_latency_table(
        self, algorithm: DMSAlgorithm, logger: Optional[Logger] = None
    ) -> None:
        """Make latency a resource of the search if there is a table.

        Raises:
            DMSError: If it is missing or of another network or device.
        """
        table = prepare_latency(
            algorithm.mutator,
            self.wanted,
            self.latency_table,
            self.latency_device,
        )
        warning = table and divisor_warning(table, self.divisor)
        if warning and logger is not None:
            logger.warning(warning)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Set this iteration's target; hold the depth when it is time."""
        self._moment = moment = self._phases.begin(runner.iter)
        self.current = moment.targets
        if moment.news:
            runner.logger.info(moment.news)
        self._grad_scale = grad_scale(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Optional[Dict[str, Any]] = None,
    ) -> None:
        """Update importances after an optimizer step; write the log."""
        algorithm = get_algorithm(runner)
        if runner.optim_wrapper.should_update():
            skipped = self._steps.skipped()
            algorithm.finish_step(
                step_scale(self._grad_scale, grad_scale(runner), skipped)
            )
        if self.every_n_train_iters(runner, self.interval):
            report_progress(
                runner,
                algorithm.mutator,
                self._moment.phase,
                self.current,
                self.interval,
            )
        self._watch.step(runner, self._moment)
        due = self._moment.due
        if due is not None:
            folder = self._folder(runner) + due.name[len('subnet') :]
            wanted = self.course.milestones[due.name]
            self._export(runner, due.name, folder, due.targets, wanted)

    def after_val_epoch(
        self, runner: Runner, metrics: Optional[Dict[str, float]] = None
    ) -> None:
        """Note a validation of the search."""
        if self._watch is not None and metrics:
            self._watch.score(runner, metrics)

    def after_train(self, runner: Runner) -> None:
        """Export the subnet, with the weights that validations use."""
        for warning in warn_if_far(
            get_algorithm(runner).mutator, self.targets
        ):
            runner.logger.warning(warning)
        folder = self._folder(runner)
        self._export(runner, 'subnet', folder, self.targets, self.wanted)

    def _export(
        self,
        runner: Runner,
        name: str,
        folder: str,
        targets: Mapping[str, float],
        wanted: Mapping[str, Target],
    ) -> None:
        """Export for one budget; of several, validate what is exported."""
        algorithm = get_algorithm(runner)
        subnet: Optional[ExportedSubnet] = None
        if dist.is_main_process() or self.course.milestones:
            subnet = export_search(
                runner, algorithm, targets, wanted, self.divisor, folder
            )
        metrics: Dict[str, float] = {}
        if self.course.milestones:
            metrics = validated_score(runner, subnet)
        if dist.is_main_process():
            done = min(runner.iter + 1, runner.max_iters)
            times: Dict[str, float] = {}
            if name == 'subnet':
                times = self.measured(algorithm, subnet.structure)
            card = self._watch.budget(
                runner, name, folder, done, subnet, metrics, times
            )
            runner.logger.info(f'Wrote {card}')

    def measured(
        self, algorithm: DMSAlgorithm, structure: Structure
    ) -> Dict[str, float]:
        """Milliseconds of supernet and subnet, measured now.

        Args:
            algorithm (DMSAlgorithm): The search.
            structure (Structure): What it has found.

        Returns:
            dict[str, float]: Empty without a latency table of this device.
        """
        if self.latency_table is None:
            return {}
        return measured_beside_supernet(
            algorithm, self.latency_table, structure
        )

    def _folder(self, runner: Runner) -> str:
        return self.out_dir or osp.join(runner.work_dir, 'subnet')


def _needed_target(
    target: Union[Target, Mapping[str, Target], None],
) -> Union[Target, Mapping[str, Target]]:
    """The target of a search, without which there is none.

    Raises:
        DMSError: If there is none.
    """
    if target is None:
        raise DMSError(
            'ResourceHook: `target` is missing: write `target=0.5` for half '
            "of the supernet's MACs, or an absolute such as `target='1G'`."
        )
    return target
