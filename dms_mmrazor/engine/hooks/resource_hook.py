"""The resource target of a search: its schedule, its log and its end."""

import os.path as osp
from logging import Logger
from typing import Any, Dict, Mapping, Optional, Union

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from dms_mmrazor.apis import export_subnet, save_subnet
from dms_mmrazor.core import Phase, phase_at, scheduled_target
from dms_mmrazor.engine.averaged_weights import (
    share_structure,
    validated_weights,
)
from dms_mmrazor.engine.latency_constraint import (
    divisor_warning,
    prepare_latency,
)
from dms_mmrazor.engine.resource_target import (
    Target,
    as_targets,
    check_reachable,
    parse_target,
)
from dms_mmrazor.engine.runner_access import (
    get_algorithm,
    grad_scale,
    search_info,
)
from dms_mmrazor.engine.search_log import (
    describe_progress,
    describe_subnet,
    describe_targets,
    structure_scalars,
    warn_if_far,
)
from dms_mmrazor.engine.search_settings import (
    KEY,
    changed_settings,
    check_space,
    limits_of,
    settings_of,
    space_of,
    structure_lr,
)
from dms_mmrazor.engine.structure_group import (
    check_structure_group,
    restore_structure_group,
)
from dms_mmrazor.engine.unsupported import refuse_unsupported
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.registry import HOOKS


@HOOKS.register_module()
class ResourceHook(Hook):
    """Leads a search to its resource target and exports what it found.

    The one place in a config where the target is set. Phases, as fractions
    of the training: *warmup* without a constraint, *decay* of the target
    from the supernet's resource to the final one (Eq. 10), and *refine*
    with the rest, in which the depth is held and widths settle (appendix
    A.1.2).

    Args:
        target (int | float | str | dict): In (0, 1] a ratio of the
            supernet, otherwise absolute, also as text: '1G', '300M'. A dict
            sets several kinds together: dict(macs=0.5, params='10M').
        resource (str): Kind of a single target: 'macs', 'params' or
            'latency' ('3ms', or a ratio). Defaults to 'macs'.
        loss_weight (float | dict): Weight λ_r of the resource loss (Table
            15), by kind if a dict. Defaults to 1.
        warmup (float): Fraction of the training without constraint.
            Defaults to 0.
        decay (float): Fraction in which the target falls. Defaults to 0.8.
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
    """

    # After the parameter schedulers, before checkpoints are written.
    priority = 'LOW'

    def __init__(
        self,
        target: Union[Target, Mapping[str, Target]],
        resource: str = 'macs',
        loss_weight: Union[float, Mapping[str, float]] = 1.0,
        warmup: float = 0.0,
        decay: float = 0.8,
        schedule: str = 'exponential',
        hold_depth: bool = True,
        divisor: int = 8,
        interval: int = 50,
        out_dir: Optional[str] = None,
        latency_table: Optional[str] = None,
        latency_device: Optional[str] = None,
    ) -> None:
        self.wanted = as_targets(target, resource)
        if isinstance(loss_weight, Mapping):
            self.weights = {**dict.fromkeys(self.wanted, 1.0), **loss_weight}
        else:
            self.weights = dict.fromkeys(self.wanted, loss_weight)
        self.warmup = warmup
        self.decay = decay
        self.schedule = schedule
        self.hold_depth = hold_depth
        self.divisor = divisor
        self.interval = interval
        self.out_dir = out_dir
        self.latency_table = latency_table
        self.latency_device = latency_device
        self.targets: Dict[str, float] = {}
        self.current: Dict[str, float] = {}
        self._depth_is_held = False
        self._grad_scale: Optional[Tensor] = None
        self._check_arguments()

    def _check_arguments(self) -> None:
        """Raise for values that no supernet could make sense of."""
        for key in ('warmup', 'decay'):
            value = getattr(self, key)
            if not isinstance(value, (int, float)):
                raise DMSError(
                    f'ResourceHook: `{key}` must be a fraction of the '
                    f'training, got {value!r}.'
                )
        try:
            phase_at(0.0, self.warmup, self.decay)
            scheduled_target(0.0, 1.0, 1.0, self.schedule)
        except ValueError as error:
            raise DMSError(f'ResourceHook: {error}') from None
        for key in ('divisor', 'interval'):
            value = getattr(self, key)
            if not isinstance(value, int) or value < 1:
                raise DMSError(
                    f'ResourceHook: `{key}` must be an int >= 1, got '
                    f'{value!r}.'
                )
        for kind, weight in self.weights.items():
            if kind not in self.wanted:
                raise DMSError(
                    f'ResourceHook: `loss_weight` names {kind!r}, which has '
                    f'no target; targets: {list(self.wanted)}.'
                )
            if not (
                isinstance(weight, (int, float)) and 0 < weight < float('inf')
            ):
                raise DMSError(
                    f'ResourceHook: `loss_weight` of {kind} must be positive '
                    f'and finite, got {weight!r}.'
                )

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
        """Say what a resumed search changes.

        Raises:
            DMSError: If the importances belong to other units.
        """
        old = checkpoint.get(KEY)
        if not old or not runner._resume:
            return
        algorithm = get_algorithm(runner)
        space = space_of(algorithm)
        check_space(old['space'], space)
        before = {**old['settings'], **limits_of(old['space'])}
        now = {**settings_of(self, runner, algorithm), **limits_of(space)}
        for line in changed_settings(before, now):
            runner.logger.warning(f'The resumed search changes {line}')

    def before_train(self, runner: Runner) -> None:
        """Check the target before anything is trained."""
        algorithm = get_algorithm(runner)
        self.resolve(algorithm)
        algorithm.set_constraints(self.weights)
        share_structure(runner, algorithm)
        # Also where a checkpoint brought another learning rate.
        check_structure_group(runner.optim_wrapper, structure_lr(runner))
        self._depth_is_held = bool(algorithm.mutator.topk.held.any())
        runner.logger.info(
            f'Search space:\n{algorithm.mutator.report()}\n'
            + describe_targets(algorithm.mutator, self.targets)
        )

    def resolve(self, algorithm: DMSAlgorithm) -> Dict[str, float]:
        """Final targets in absolute numbers.

        Raises:
            DMSError: If one cannot be read or reached.
        """
        mutator = algorithm.mutator
        self.use_latency_table(algorithm)
        for kind, wanted in self.wanted.items():
            if kind not in mutator.table.full:
                raise DMSError(
                    f'ResourceHook: unknown resource {kind!r}; known: '
                    f'{list(mutator.table.full)}.'
                )
            key = f'ResourceHook.target ({kind})'
            whole = mutator.table.full[kind]
            target = parse_target(wanted, whole, key, kind)
            smallest, _ = mutator.table.range(kind, self.divisor)
            check_reachable(kind, target, whole, smallest, key)
            self.targets[kind] = target
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

    def phase(self, runner: Runner) -> Phase:
        """Phase of the search at this iteration."""
        total = max(runner.max_iters, 1)
        return phase_at(min(runner.iter / total, 1.0), self.warmup, self.decay)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Set this iteration's target, structural options and depth."""
        algorithm = get_algorithm(runner)
        phase = self.phase(runner)
        for kind, final in self.targets.items():
            whole = algorithm.mutator.table.full[kind]
            self.current[kind] = (
                float('inf')
                if phase.name == 'warmup'
                else scheduled_target(
                    phase.progress, whole, final, self.schedule
                )
            )
        algorithm.set_targets(self.current)
        if self._must_hold(phase):
            algorithm.mutator.masks.hold_depth()
            self._depth_is_held = True
        restore_structure_group(runner.optim_wrapper)
        self._grad_scale = grad_scale(runner)

    def _must_hold(self, phase: Phase) -> bool:
        """Whether the refining phase begins with this iteration."""
        begins = phase.name == 'refine' and not self._depth_is_held
        return begins and self.hold_depth

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
            algorithm.finish_step(self._checked_scale(runner, algorithm))
        if self.every_n_train_iters(runner, self.interval):
            phase = self.phase(runner)
            line = describe_progress(algorithm.mutator, phase, self.current)
            runner.logger.info(line)
            scalars = structure_scalars(algorithm.mutator)
            runner.visualizer.add_scalars(scalars, step=runner.iter + 1)

    def _checked_scale(
        self, runner: Runner, algorithm: DMSAlgorithm
    ) -> Optional[Tensor]:
        """Loss scale of the step; NaN if the scaler has skipped the step.

        The gradients of the masks can be finite when those of a weight are
        not; a skipped step must not count for the importances either. The
        scaler tells it by lowering its scale.
        """
        scale = self._grad_scale
        if scale is None:
            return None
        lowered = grad_scale(runner) < scale
        skipped = torch.full_like(scale, float('nan'))
        return torch.where(lowered, skipped, scale)

    def after_train(self, runner: Runner) -> None:
        """Export the subnet, with the weights that validations use."""
        algorithm = get_algorithm(runner)
        if not dist.is_main_process():
            return
        for warning in warn_if_far(algorithm.mutator, self.targets):
            runner.logger.warning(warning)
        search = search_info(runner, self.wanted)
        with validated_weights(runner):
            subnet = export_subnet(
                algorithm, self.targets, self.divisor, search
            )
        folder = self.out_dir or osp.join(runner.work_dir, 'subnet')
        paths = save_subnet(subnet, folder)
        runner.logger.info(describe_subnet(subnet.structure))
        runner.logger.info(
            f'Wrote {paths["structure"]} and {paths["weights"]}; outputs '
            f"equal the masked supernet's to {subnet.difference:.1e}."
        )


def find_resource_hook(cfg: Config) -> ResourceHook:
    """The ResourceHook of a search's config.

    Raises:
        DMSError: If the config has none.
    """
    for hook in cfg.get('custom_hooks') or []:
        hook = dict(hook)
        if str(hook.pop('type', '')).rpartition('.')[2] == 'ResourceHook':
            hook.pop('_scope_', None)
            hook.pop('priority', None)
            return ResourceHook(**hook)
    raise DMSError(
        f'{cfg.filename}: `custom_hooks` has no ResourceHook; this is not '
        'the config of a search.'
    )
