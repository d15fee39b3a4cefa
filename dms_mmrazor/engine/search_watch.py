"""What people look at: record, lines and picture of a search, its export."""

import os.path as osp
import sys
import time
from typing import Any, Dict, List, Mapping, Optional

import mmengine
import torch
from mmengine import dist
from mmengine.runner import Runner, ValLoop

from dms_mmrazor.engine.retraining import (
    finetunes,
    retrain_command,
    write_retrain_config,
)
from dms_mmrazor.engine.runner_access import (
    dataset_meta,
    search_info,
    validated_weights,
)
from dms_mmrazor.engine.search_log import describe_subnet, mean_losses
from dms_mmrazor.files import plain_value
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.search.export import (
    ExportedSubnet,
    export_subnet,
    save_subnet,
)
from dms_mmrazor.search.export_warnings import warn_if_loose
from dms_mmrazor.search.phases import Moment, SearchPhases
from dms_mmrazor.search.record import (
    Recorder,
    describe_search,
    numbers_of,
    record_interval,
)
from dms_mmrazor.supernet.resources import format_resource
from dms_mmrazor.visualization import plot_subnet, rgb_image, write_card

SECONDS = 60
"""Between two lines that say where a search stands."""

EXTREMES = 2
"""Units at each end that a line shows: the dearest and the cheapest."""

PICTURES = 10
"""Pictures of the structure in one search."""


class SearchWatch:
    """Writes what people look at; on the main process alone.

    Args:
        runner (Runner): Trains the search.
        algorithm (DMSAlgorithm): The search.
        phases (SearchPhases): Its course.
        folder (str): Where the subnet will be written.
        interval (int): Iterations between two lines of the log.
    """

    def __init__(
        self,
        runner: Runner,
        algorithm: DMSAlgorithm,
        phases: SearchPhases,
        folder: str,
        interval: int,
    ) -> None:
        self.algorithm = algorithm
        self.phases = phases
        self.recorder = Recorder(folder)
        total = runner.max_iters
        self.every = record_interval(total, min(interval, max(total // 50, 1)))
        self.picture_every = max(total // PICTURES, interval)
        self._main = dist.is_main_process()
        self._last = self._begun = time.monotonic()
        self._first = runner.iter
        if self._main:
            self.recorder.begin(self._description(runner), runner.iter)

    def step(self, runner: Runner, moment: Moment) -> None:
        """After an iteration: what is due of record, line and picture."""
        if not self._main:
            return
        done = runner.iter + 1
        mutator, structure = self.algorithm.mutator, self.algorithm.structure
        if done % self.every == 0 or done == runner.max_iters:
            losses = _losses(runner, list(moment.targets), self.every)
            name, targets = moment.phase.name, moment.targets
            self.recorder.step(done, name, targets, mutator, structure, losses)
        if time.monotonic() - self._last >= SECONDS:
            self._last = time.monotonic()
            runner.logger.info(self._line(runner, moment))
        if done % self.picture_every == 0 and runner.visualizer._vis_backends:
            shown = mutator.structure(resources=self._resources())
            figure = plot_subnet(shown, f'Iteration {done}: if exported now')
            image = rgb_image(figure)
            runner.visualizer.add_image('dms_structure', image, done)

    def score(self, runner: Runner, metrics: Mapping[str, Any]) -> None:
        """After a validation."""
        if self._main:
            self.recorder.score(runner.iter, metrics)

    def budget(
        self,
        runner: Runner,
        name: str,
        folder: str,
        done: int,
        subnet: ExportedSubnet,
        metrics: Mapping[str, Any],
        measured: Mapping[str, float],
    ) -> str:
        """Note an exported subnet and bring the card up to date.

        Returns:
            str: Path of the card.
        """
        write_retrain_config(runner, folder)
        self.recorder.budget(
            name,
            osp.relpath(folder, self.recorder.folder),
            done,
            subnet.structure,
            metrics,
            measured,
            retrain_command(runner, folder),
        )
        return write_card(self.recorder.folder)

    def _description(self, runner: Runner) -> Dict[str, Any]:
        algorithm, path = self.algorithm, self.phases.path
        return describe_search(
            algorithm.mutator,
            algorithm.structure.step,
            path.targets,
            runner.max_iters,
            milestones={m.name: m.targets for m in path.milestones},
            **describe_start(runner, self.recorder.folder),
        )

    def _resources(self) -> Dict[str, Dict[str, float]]:
        mutator = self.algorithm.mutator
        return {
            kind: {'supernet': full, 'subnet': mutator.resource(kind)}
            for kind, full in mutator.table.full.items()
        }

    def _line(self, runner: Runner, moment: Moment) -> str:
        """Like 'Search 31%, decay, 0:12:05 left: macs 2.3G → 1G …'."""
        done, total = runner.iter + 1, runner.max_iters
        each = (time.monotonic() - self._begun) / max(done - self._first, 1)
        minutes, seconds = divmod(int(each * (total - done)), 60)
        left = f'{minutes // 60}:{minutes % 60:02d}:{seconds:02d}'
        mutator, parts = self.algorithm.mutator, []
        for kind, target in moment.targets.items():
            final = format_resource(self.phases.path.targets[kind], kind)
            now = format_resource(mutator.resource(kind, hard=False), kind)
            aim = 'none' if target == float('inf') else ''
            aim = aim or format_resource(target, kind)
            parts.append(f'{kind} {now}, target now {aim}, at the end {final}')
        prices = price_line(self.algorithm)
        return (
            f'Search {done / total:.0%}, {moment.phase.name}, {left} left: '
            f'{"; ".join(parts)}{prices}'
        )


def describe_start(runner: Runner, folder: str) -> Dict[str, Any]:
    """How a search was started, for :func:`describe_search`.

    Args:
        runner (Runner): Of the search.
        folder (str): Where the subnet will be written.
    """
    return {
        'config': runner.cfg.filename or '',
        'config_text': runner.cfg.pretty_text,
        'seed': plain_value(runner.seed),
        'command': ' '.join(sys.argv),
        'work_dir': runner.work_dir,
        'mmengine': mmengine.__version__,
        'retrain': retrain_command(runner, folder),
        'finetunes': finetunes(runner.cfg),
        'processes': dist.get_world_size(),
    }


def price_line(algorithm: DMSAlgorithm) -> str:
    """The dearest and the cheapest units, against the usual price.

    A price is the task loss that one unit of log-resource of a unit saves:
    pruning it further is dear where it is high.

    Args:
        algorithm (DMSAlgorithm): During a search.
    """
    mutator = algorithm.mutator
    prices = algorithm.structure.step.prices()
    free = mutator.topk.held == 0
    units = mutator.searched_units
    rows = [
        (float(price), unit.name)
        for price, unit, searched in zip(prices, units, free.tolist())
        if searched
    ]
    usual = sum(abs(price) for price, _ in rows) / max(len(rows), 1)
    if not usual > 0:
        return ''
    rows.sort()
    texts = [f'{name} {price / usual:.1f}' for price, name in rows]
    return (
        f'; dearest {", ".join(reversed(texts[-EXTREMES:]))}; cheapest '
        f'{", ".join(texts[:EXTREMES])} (1 is the usual price)'
    )


def validated_score(
    runner: Runner, subnet: ExportedSubnet
) -> Dict[str, float]:
    """Metrics of an exported subnet on the validation data, untrained.

    Beside the training: no hook notices, and the random numbers that follow
    are the same. On all ranks.

    Args:
        runner (Runner): During a search.
        subnet (ExportedSubnet): What was exported, on the CPU; it stays
            there.

    Returns:
        dict[str, float]: Empty if the runner validates nothing.
    """
    loop: Optional[Any] = runner.val_loop
    if not isinstance(loop, ValLoop):
        return {}
    device = next(runner.model.parameters()).device
    model = subnet.model.to(device).eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for batch in loop.dataloader:
            with torch.autocast(device.type, enabled=bool(loop.fp16)):
                outputs = model.val_step(batch)
            loop.evaluator.process(data_samples=outputs, data_batch=batch)
    model.train().cpu()
    metrics = loop.evaluator.evaluate(len(loop.dataloader.dataset))
    return numbers_of(metrics)


def export_search(
    runner: Runner,
    algorithm: DMSAlgorithm,
    targets: Mapping[str, float],
    wanted: Mapping[str, object],
    divisor: int,
    folder: str,
) -> ExportedSubnet:
    """Export what was found, with the weights that validations use.

    Args:
        runner (Runner): After the search.
        algorithm (DMSAlgorithm): The search.
        targets (Mapping[str, float]): Final targets, absolute.
        wanted (Mapping[str, object]): Targets as the config has them.
        divisor (int): Of the exported widths.
        folder (str): Where the main process writes.
    """
    search = search_info(runner, wanted)
    with validated_weights(runner):
        subnet = export_subnet(algorithm, targets, divisor, search)
    if not dist.is_main_process():
        return subnet
    paths = save_subnet(subnet, folder, dataset_meta(runner))
    logger = runner.logger
    logger.info(str(subnet.fit))
    logger.info(describe_subnet(subnet.structure))
    for warning in warn_if_loose(subnet, divisor):
        logger.warning(warning)
    logger.info(
        f'Wrote {paths["structure"]} and {paths["weights"]}; outputs '
        f"equal the masked supernet's to {subnet.difference:.1e}."
    )
    return subnet


def _losses(runner: Runner, kinds: List[str], window: int) -> Dict[str, float]:
    losses = mean_losses(runner, kinds, window)
    if losses is None:
        return {}
    resources = {f'resource {kind}': v for kind, v in losses.resources.items()}
    return {'task': losses.task, **resources}
