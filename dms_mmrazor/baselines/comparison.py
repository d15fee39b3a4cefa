"""A comparison of methods: what has to be run, and what came of it."""

import json
import math
import os.path as osp
import statistics
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

from dms_mmrazor.baselines.runs import Record, Run, environment
from dms_mmrazor.baselines.tables import Row, grid_table, plot, table
from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import write_text

FIXED = ('uniform', 'compound')
"""Methods that find the same structure whatever the seed."""

TRIED = ('ea', 'random-best')
"""Methods that try many structures with the weights of a supernet."""

BY_LOSSES = ('taylor', 'greedy')
"""Methods that run the trained supernet on batches to judge its weights."""

TRAINED = ('l1-uniform', 'l1', 'l2', *BY_LOSSES, *TRIED)
"""Methods that judge the weights of a trained supernet."""

PRETRAINED = '-pretrained'
"""What the name of a search ends with that starts from a trained supernet."""

FURTHER = 1000
"""Seeds of further trainings of a structure are so far apart."""

TUNING_SEED = 100
"""Grids are tried with a seed of their own, and judged on validation data."""


class Comparison(NamedTuple):
    """What is compared.

    Attributes:
        methods (Sequence[str]): Names.
        targets (Sequence[float]): Resource relative to the supernet.
        seeds (Sequence[int]): Of searches and trainings.
        common (dict): What all results depend on, as plain data.
        grids (Mapping[str, Sequence[dict]]): Settings that a method is
            tried with, by method. A method that is not in it has one
            setting, its default. Defaults to {}.
        retrained (bool): Whether structures are trained from scratch.
            False: the supernet's own weights are cut. Defaults to True.
        finetuned (bool): Whether cut weights are trained further. Defaults
            to False.
        pretrained (Sequence[str]): Methods that start from a trained
            supernet. Defaults to ().
        trainings (int): Of each found structure, with seeds of their own.
            Defaults to 1.
    """

    methods: Sequence[str]
    targets: Sequence[float]
    seeds: Sequence[int]
    common: Dict[str, Any]
    grids: Mapping[str, Sequence[Dict[str, Any]]] = {}
    retrained: bool = True
    finetuned: bool = False
    pretrained: Sequence[str] = ()
    trainings: int = 1


def plan(comparison: Comparison) -> List[Run]:
    """All runs of a comparison, needs first.

    Kinds: 'supernet' trains the whole network (with the images of a search
    if what is found is trained again), 'found' finds a structure, 'trained'
    trains one.

    Raises:
        DMSError: If a method is named twice.
    """
    if len(set(comparison.methods)) != len(comparison.methods):
        raise DMSError('--methods names a method twice.')
    planner = _Planner(comparison)
    for target in comparison.targets:
        for method in comparison.methods:
            planner.add(method, target)
    return list(planner.runs.values())


class _Planner:
    """Collects the runs of a comparison, each once, needs first.

    Args:
        comparison (Comparison): What is compared.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.runs: Dict[str, Run] = {}

    def add(self, method: str, target: float) -> None:
        """Add the runs whose scores are reported, and all that they need."""
        comparison = self.comparison
        settings = self._settings(method, target)
        fixed = method in FIXED and comparison.retrained
        for seed in comparison.seeds:
            found = self._found(method, target, 0 if fixed else seed, settings)
            for number in range(comparison.trainings):
                again = seed + number * FURTHER
                self._scored(method, target, again, found)

    def _settings(self, method: str, target: float) -> Dict[str, Any]:
        """The only settings of a method, or its grid and who has tried it."""
        grid = [dict(row) for row in self.comparison.grids.get(method, ())]
        if len(grid) < 2:
            return {'options': grid[0] if grid else {}}
        tried = []
        for index, options in enumerate(grid):
            settings = {'options': options}
            found = self._found(
                method, target, TUNING_SEED, settings, f'-g{index}'
            )
            tried.append(self._scored(method, target, TUNING_SEED, found))
        return {'grid': grid, 'tried': tried}

    def _found(
        self,
        method: str,
        target: float,
        seed: int,
        settings: Dict[str, Any],
        suffix: str = '',
    ) -> str:
        """Add the run that finds a structure; its name."""
        comparison = self.comparison
        name = f'found-{method}-t{target:g}-s{seed}{suffix}'
        if name in self.runs:
            return name
        needs = list(settings.get('tried', ()))
        judged = method in (*TRAINED, *comparison.pretrained)
        if judged or not comparison.retrained:
            needs.append(self._supernet(seed))
        if method == 'depth-uniform':
            needs.append(self._depths(target, seed))
        base = {'method': method, 'target': target, 'seed': seed, **settings}
        self._run(name, 'found', base, needs)
        return name

    def _supernet(self, seed: int) -> str:
        """Add the training of the whole network; its name."""
        if seed == TUNING_SEED and not self.comparison.retrained:
            seed = self.comparison.seeds[0]  # only the structure is tried
        name = f'supernet-s{seed}'
        if name not in self.runs:
            self._run(name, 'supernet', {'seed': seed})
        return name

    def _depths(self, target: float, seed: int) -> str:
        """Add the search whose depths get uniform widths; its name."""
        methods = self.comparison.methods
        method = next((m for m in methods if m.startswith('dms')), 'dms')
        settings = self._settings(method, target)
        return self._found(method, target, seed, settings)

    def _scored(
        self, method: str, target: float, seed: int, found: str
    ) -> str:
        """Add the training of a structure, unless its weights are just cut."""
        if not (self.comparison.retrained or self.comparison.finetuned):
            return found
        name = f'trained-{found[len("found-") :]}'
        if self.runs[found].settings['seed'] != seed:
            name += f'-w{seed}'
        base = {'method': method, 'target': target, 'seed': seed}
        self._run(name, 'trained', base, [found])
        return name

    def _run(
        self,
        name: str,
        kind: str,
        settings: Dict[str, Any],
        needs: Sequence[str] = (),
    ) -> None:
        settings = {**self.comparison.common, **settings}
        self.runs[name] = Run(name, kind, settings, tuple(needs))


def options_of(run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
    """Settings of a method: given, or the best of its grid.

    Args:
        run (Run): Finds a structure.
        needs (Mapping[str, Record]): Results of the tried settings, of
            which ``judged`` decides, higher is better, or ``val``.
    """

    def judged(name: str) -> float:
        result = needs[name]['result']
        return result.get('judged', result['val'])

    if 'grid' not in run.settings:
        return dict(run.settings['options'])
    tried = run.settings['tried']
    best = max(tried, key=judged)
    return dict(run.settings['grid'][tried.index(best)])


def summarize(
    comparison: Comparison, records: Mapping[str, Record]
) -> List[Row]:
    """A row for each method and target that has a result.

    ``gain`` is the difference to uniform networks, ``error`` its standard
    error (of independent seeds; nan where one has fewer than two).
    """
    trains = comparison.retrained or comparison.finetuned
    kind = 'trained' if trains else 'found'
    rows: List[Row] = []
    for target in comparison.targets:
        reference: List[float] = []
        for method in comparison.methods:
            mine = _mine(records, kind, method, target)
            if not mine:
                continue
            scores = [record['result']['score'] for record in mine]
            if method == 'uniform':
                reference = scores
            row = {'target': target, 'method': method, **_spread(scores)}
            row.update(_costs(mine, records))
            rows.append(row)
        for row in rows:
            if row['target'] == target and reference:
                row.update(_gain(row['scores'], reference))
    return rows


def _mine(
    records: Mapping[str, Record], kind: str, method: str, target: float
) -> List[Record]:
    """Final results of a method, by seed."""
    return [
        record
        for record in records.values()
        if record['kind'] == kind
        and record['settings'].get('method') == method
        and record['settings'].get('target') == target
        and record['settings']['seed'] != TUNING_SEED
        and 'score' in record['result']
    ]


def _spread(scores: Sequence[float]) -> Row:
    several = len(scores) > 1
    return {
        'scores': list(scores),
        'mean': statistics.fmean(scores),
        'std': statistics.stdev(scores) if several else math.nan,
    }


def _gain(scores: Sequence[float], reference: Sequence[float]) -> Row:
    error = math.nan
    if min(len(scores), len(reference)) > 1:
        error = math.hypot(
            statistics.stdev(scores) / math.sqrt(len(scores)),
            statistics.stdev(reference) / math.sqrt(len(reference)),
        )
    gain = statistics.fmean(scores) - statistics.fmean(reference)
    return {'gain': gain, 'error': error}


def _costs(mine: Sequence[Record], records: Mapping[str, Record]) -> Row:
    """Mean resource and costs of one structure of a method.

    The supernet that a method needs counts as its own; the trials of a grid
    do not count, the seeds' runs alone.
    """
    found = [records[record['result']['found']] for record in mine]
    results = [record['result'] for record in found]
    trained = mine if mine[0]['kind'] == 'trained' else []

    def mean(values: Sequence[float]) -> float:
        return statistics.fmean(values) if values else 0.0

    return {
        'resource': mean([result['ratio'] for result in results]),
        'search_images': mean([result['images'] for result in results]),
        'search_seconds': mean([result['cost'] for result in results]),
        'train_seconds': mean([r['cpu_seconds'] for r in trained]),
        'options': results[0].get('options', {}),
    }


def write(
    comparison: Comparison,
    records: Mapping[str, Record],
    folder: str,
    score: str = 'score',
) -> List[str]:
    """Write ``comparison.md``, ``.json`` and ``.png`` into a folder.

    Args:
        comparison (Comparison): What was compared.
        records (Mapping[str, Record]): Results of all runs by name.
        folder (str): Where to.
        score (str): What the score is. Defaults to 'score'.

    Returns:
        list[str]: The tables and where they were written.
    """
    rows = summarize(comparison, records)
    tables = [table(rows, score)]
    tried = grid_table(
        [
            record
            for record in records.values()
            if record['settings']['seed'] == TUNING_SEED
            and 'val' in record['result']
            and record['result'].get('options')
        ]
    )
    if tried:
        tables.append(f'Settings that were tried:\n\n{tried}')
    text = '\n\n'.join(tables)
    data = {
        'environment': environment(),
        'comparison': comparison._asdict(),
        'rows': rows,
        'runs': list(records.values()),
    }
    base = osp.join(folder, 'comparison')
    for suffix, content in (
        ('.md', text),
        ('.json', json.dumps(data, indent=1)),
    ):
        write_text(base + suffix, f'{content}\n')
    plot(rows, f'{base}.png', score)
    return [text, f'Wrote {base}.md, {base}.json and {base}.png.']
