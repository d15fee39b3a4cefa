"""The record of a search: a file of lines that grows while it runs.

What the result card and the pictures are made of, at any time. A line is a
JSON object with a ``type``: ``search`` (what is searched and how; once for
every start), ``step``, ``score`` (a validation) and ``budget`` (an exported
subnet). A resumed search goes on in the same file.
"""

import json
import math
import os
import os.path as osp
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

import torch

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.search.milestones import TargetPath
from dms_mmrazor.search.structure_search import StructureSearch
from dms_mmrazor.subnet import Structure, save_structure
from dms_mmrazor.version import __version__

RECORD_FILE = 'search.jsonl'

ROWS = 400
"""About so many steps of a search are recorded."""


class SearchRecord(NamedTuple):
    """What is known of a search.

    Attributes:
        search (dict): What is searched, and how.
        steps (list[dict]): Its course: ``iteration``, ``phase``,
            ``target``, ``current`` and ``exported`` (absolute, by kind),
            ``ratio`` and ``price`` (by unit, then by stage), ``blocks``
            (1 for those that are kept), ``losses``.
        scores (list[dict]): Validations: ``iteration`` and ``metrics``.
        budgets (list[dict]): Exported subnets: ``name``, ``folder``,
            ``iteration``, ``resources``, ``metrics`` and ``measured``
            (milliseconds of ``supernet`` and ``subnet``, if measured).
    """

    search: Dict[str, Any]
    steps: List[Dict[str, Any]]
    scores: List[Dict[str, Any]]
    budgets: List[Dict[str, Any]]

    @property
    def iteration(self) -> int:
        """Iterations that are known to be done."""
        rows = [*self.steps, *self.scores, *self.budgets]
        return max([row['iteration'] for row in rows], default=0)

    @property
    def finished(self) -> bool:
        """Whether the final budget is exported."""
        return any(row['name'] == 'subnet' for row in self.budgets)


class Recorder:
    """Appends lines to the record of a search.

    Args:
        folder (str): Where the subnet is written; it is made if missing.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.path = osp.join(folder, RECORD_FILE)
        self._started = time.time()

    def begin(self, search: Mapping[str, Any], iteration: int = 0) -> None:
        """Begin, or go on after ``iteration``; what came later is void."""
        os.makedirs(self.folder, exist_ok=True)
        if iteration == 0 and osp.isfile(self.path):
            os.replace(self.path, f'{self.path}.old')
        self._started = time.time()
        self._write('search', {**search, 'resumed': iteration})

    def step(
        self,
        iteration: int,
        phase: str,
        targets: Mapping[str, float],
        mutator: DMSMutator,
        structure: StructureSearch,
        losses: Mapping[str, float],
    ) -> None:
        """Note where a search stands.

        Args:
            iteration (int): Iterations that are done.
            phase (str): Name of the phase.
            targets (Mapping[str, float]): Present ones, absolute.
            mutator (DMSMutator): Of the search.
            structure (StructureSearch): What moves it.
            losses (Mapping[str, float]): By name.
        """
        kinds = list(mutator.table.full)
        topk = mutator.topk
        row = {
            'iteration': iteration,
            'seconds': time.time() - self._started,
            'phase': phase,
            'target': dict(targets),
            'current': {k: mutator.resource(k, hard=False) for k in kinds},
            'exported': {k: mutator.resource(k) for k in kinds},
            'ratio': (1 - topk.kept() / topk.layout.size).tolist(),
            'price': structure.step.prices().tolist(),
            'blocks': mutator.masks.hard_blocks().tolist(),
            'losses': dict(losses),
        }
        self._write('step', row)

    def tried(
        self,
        number: int,
        phase: str,
        targets: Mapping[str, float],
        best: Structure,
        resources: Mapping[str, float],
    ) -> None:
        """Note where a search stands that has neither ratios nor prices.

        Args:
            number (int): Structures that were tried.
            phase (str): Such as 'generation 2'.
            targets (Mapping[str, float]): Of the search, absolute.
            best (Structure): The best one so far.
            resources (Mapping[str, float]): Of the best one, by kind.
        """
        units, stages = best.units, best.stages
        kept = [len(unit.kept) / unit.size for unit in units]
        kept += [len(s.kept) / max(len(s.blocks), 1) for s in stages]
        row = {
            'iteration': number,
            'seconds': time.time() - self._started,
            'phase': phase,
            'target': dict(targets),
            'current': dict(resources),
            'exported': dict(resources),
            'ratio': [1 - part for part in kept],
            'price': [None] * len(kept),
            'blocks': [
                float(block in stage.kept)
                for stage in stages
                for block in stage.blocks
            ],
            'losses': {},
        }
        self._write('step', row)

    def score(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        """Note a validation."""
        row = {'iteration': iteration, 'metrics': numbers_of(metrics)}
        self._write('score', row)

    def budget(
        self,
        name: str,
        folder: str,
        iteration: int,
        structure: Structure,
        metrics: Mapping[str, Any],
        measured: Optional[Mapping[str, float]] = None,
        retrain: Optional[str] = None,
    ) -> None:
        """Note an exported subnet; 'subnet' is the final one.

        Args:
            name (str): 'subnet-50', or 'subnet'.
            folder (str): Where it is, relative to the record's folder.
            iteration (int): Steps that were made.
            structure (Structure): What is kept.
            metrics (Mapping[str, Any]): Scores before a retraining.
            measured (Mapping[str, float], optional): Milliseconds by what
                was measured. Defaults to None.
            retrain (str, optional): The command that trains it. Defaults to
                None, there is none.
        """
        row = {
            'name': name,
            'folder': folder,
            'iteration': iteration,
            'resources': structure.resources,
            'metrics': numbers_of(metrics),
            'measured': dict(measured or {}),
            'retrain': retrain,
        }
        self._write('budget', row)

    def _write(self, kind: str, row: Mapping[str, Any]) -> None:
        line = json.dumps({'type': kind, **_plain(dict(row))})
        with open(self.path, 'a', encoding='utf-8') as file:
            # Half a line that a killed process left stays a line of its own.
            file.write(f'\n{line}\n' if kind == 'search' else f'{line}\n')


class LoopRecorder(Recorder):
    """The record of a search in a training loop of one's own.

    It begins with the first step, when targets and resources are final.

    Args:
        folder (str): Where subnets are written.
        total (int): Iterations of the search.
        mutator (DMSMutator): Of the search.
        structure (StructureSearch): What moves it.
        path (TargetPath): Targets of every iteration.
    """

    def __init__(
        self,
        folder: str,
        total: int,
        mutator: DMSMutator,
        structure: StructureSearch,
        path: TargetPath,
    ) -> None:
        super().__init__(folder)
        self.total = total
        self.mutator = mutator
        self.structure = structure
        self.targets = path
        self._begun = False

    def after(self, done: int, phase: str) -> None:
        """Write a line if it is time.

        Args:
            done (int): Iterations that are done.
            phase (str): Name of the phase.
        """
        mutator, structure, path = self.mutator, self.structure, self.targets
        if not self._begun:
            self._begun = True
            search = describe_search(
                mutator, structure.step, path.targets, self.total
            )
            self.begin(search, done - 1)
        if done % record_interval(self.total) == 0 or done == self.total:
            self.step(done, phase, path.at(done - 1), mutator, structure, {})

    def exported(
        self,
        name: str,
        done: int,
        structure: Structure,
        metrics: Mapping[str, float],
    ) -> None:
        """Write a subnet's structure beside the record, and note it."""
        save_structure(structure, osp.join(self.folder, f'{name}.yaml'))
        self.budget(name, '.', done, structure, metrics)


def describe_search(
    mutator: DMSMutator,
    rule: Any,
    targets: Mapping[str, float],
    total: int,
    **more: Any,
) -> Dict[str, Any]:
    """What is searched and how, for :meth:`Recorder.begin`.

    Args:
        mutator (DMSMutator): Of the search.
        rule (object): What moves it, to be shown.
        targets (Mapping[str, float]): Final ones, absolute.
        total (int): Iterations of the search, or structures to try.
        **more: Milestones, config, seed and the like.
    """
    report = mutator.report()
    return {
        'dms_mmrazor': __version__,
        'torch': str(torch.__version__),
        'total': total,
        'units': [[unit.name, unit.num_channels] for unit in mutator.units],
        'stages': [
            [stage.name, list(stage.blocks)]
            for stage in mutator.structure().stages
        ],
        'supernet': dict(mutator.table.full),
        'targets': dict(targets),
        'input_size': mutator.analyzer.shapes,
        'rule': str(rule),
        'layers': len(report.layers),
        'unsearched': [list(row[:3]) for row in report.unsearched],
        'one_sided': [
            list(row[:3])
            for row in report.layers
            if row.searched and not row.on_both_sides
        ],
        'stage_reasons': dict(report.stage_reasons),
        **more,
    }


def read_record(folder: str) -> SearchRecord:
    """Read the record of a search, also while it runs.

    Args:
        folder (str): Where the subnet is, or will be, written.

    Raises:
        DMSError: If there is none.
    """
    path = osp.join(folder, RECORD_FILE)
    if not osp.isfile(path):
        raise DMSError(
            f'{path} does not exist: {folder} is not the `subnet` folder of '
            'a search, or the search was made by a version without records.'
        )
    record = SearchRecord({}, [], [], [])
    for row in _rows(path):
        kind = row.pop('type')
        if kind == 'search':
            record = _after(record, row)
        elif kind in ('step', 'score', 'budget'):
            getattr(record, f'{kind}s').append(row)
    if not record.search:
        raise DMSError(f'{path} has no line of type `search`.')
    return record


def _rows(path: str) -> List[Dict[str, Any]]:
    """Whole lines; a killed process may have left half of one."""
    rows = []
    with open(path, encoding='utf-8') as file:
        for line in file:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict) and 'type' in row:
                rows.append(row)
    return rows


def _after(record: SearchRecord, search: Dict[str, Any]) -> SearchRecord:
    """The record when a search goes on after an iteration."""
    last = search.get('resumed', 0)
    kept = [
        [row for row in rows if row['iteration'] <= last]
        for rows in (record.steps, record.scores, record.budgets)
    ]
    return SearchRecord(search, *kept)


def numbers_of(metrics: Mapping[str, Any]) -> Dict[str, float]:
    """The metrics that are numbers."""
    return {
        str(name): float(value)
        for name, value in metrics.items()
        if isinstance(value, (int, float)) or getattr(value, 'ndim', 1) == 0
    }


def record_interval(total: int, least: int = 1) -> int:
    """Iterations between two recorded steps."""
    return max(least, total // ROWS, 1)


def _plain(value: Any) -> Any:
    """What JSON has; numbers with six digits, None if not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f'{value:.6g}') if math.isfinite(value) else None
    known = value is None or isinstance(value, (bool, int, str))
    return value if known else str(value)
