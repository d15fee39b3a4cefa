"""A comparison of methods: what has to be run, and what came of it."""

import json
import math
import os.path as osp
import statistics
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

from dms_mmrazor.baselines.runs import Record, Run, environment
from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import write_text

WITHOUT_SEARCH = (
    'uniform',
    'random',
    'depth-uniform',
    'compound',
    'l1',
    'taylor',
    'greedy',
)
FIXED = ('uniform', 'compound')
"""Methods that find the same structure whatever the seed."""

TRIED = ('ea', 'random-best')
"""Methods that try many structures with the weights of a supernet."""

TRAINED = ('l1', 'taylor', 'greedy', *TRIED)
"""Methods that judge the weights of a trained supernet."""

FURTHER = 1000
"""Seeds of further trainings of a structure are so far apart."""

TUNING_SEED = 100
"""Grids are tried with a seed of their own, and judged on validation data."""

Row = Dict[str, Any]


class Comparison(NamedTuple):
    """What is compared.

    Attributes:
        methods (Sequence[str]): Names; what is not among
            :data:`WITHOUT_SEARCH` is a search.
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
    runs: Dict[str, Run] = {}
    for target in comparison.targets:
        for method in comparison.methods:
            tried = _tuning(comparison, method, target, runs)
            for seed in comparison.seeds:
                _final(comparison, method, target, seed, tried, runs)
    return list(runs.values())


def _tuning(
    comparison: Comparison,
    method: str,
    target: float,
    runs: Dict[str, Run],
) -> List[str]:
    """Runs that try a method's grid; their names."""
    grid = comparison.grids.get(method, ())
    if len(grid) < 2:
        return []
    names = []
    for index, options in enumerate(grid):
        settings = {'options': dict(options)}
        found = _found(
            comparison,
            method,
            target,
            TUNING_SEED,
            settings,
            runs,
            suffix=f'-g{index}',
        )
        names.append(
            _scored(comparison, method, target, TUNING_SEED, found, runs)
        )
    return names


def _final(
    comparison: Comparison,
    method: str,
    target: float,
    seed: int,
    tried: Sequence[str],
    runs: Dict[str, Run],
) -> None:
    """The runs whose scores are reported."""
    fixed = method in FIXED and comparison.retrained
    settings = _settings(comparison, method, tried)
    found = _found(
        comparison, method, target, 0 if fixed else seed, settings, runs
    )
    for number in range(comparison.trainings):
        again = seed + number * FURTHER
        _scored(comparison, method, target, again, found, runs)


def _settings(
    comparison: Comparison, method: str, tried: Sequence[str]
) -> Dict[str, Any]:
    """The only settings of a method, or its grid and who has tried it."""
    grid = [dict(options) for options in comparison.grids.get(method, ())]
    if tried:
        return {'grid': grid, 'tried': list(tried)}
    return {'options': grid[0] if grid else {}}


def _found(
    comparison: Comparison,
    method: str,
    target: float,
    seed: int,
    settings: Dict[str, Any],
    runs: Dict[str, Run],
    suffix: str = '',
) -> str:
    """Add the run that finds a structure; its name."""
    name = f'found-{method}-t{target:g}-s{seed}{suffix}'
    if name in runs:
        return name
    needs = list(settings.get('tried', ()))
    judged = method in (*TRAINED, *comparison.pretrained)
    if judged or not comparison.retrained:
        needs.append(_supernet(comparison, seed, runs))
    if method == 'depth-uniform':
        needs.append(_depths(comparison, target, seed, runs))
    base = {'method': method, 'target': target, 'seed': seed, **settings}
    runs[name] = Run(
        name, 'found', {**comparison.common, **base}, tuple(needs)
    )
    return name


def _supernet(comparison: Comparison, seed: int, runs: Dict[str, Run]) -> str:
    if seed == TUNING_SEED and not comparison.retrained:
        seed = comparison.seeds[0]  # only the structure is tried
    name = f'supernet-s{seed}'
    settings = {**comparison.common, 'seed': seed}
    runs.setdefault(name, Run(name, 'supernet', settings))
    return name


def _depths(
    comparison: Comparison, target: float, seed: int, runs: Dict[str, Run]
) -> str:
    """The search whose depths get uniform widths."""
    searches = [m for m in comparison.methods if m.startswith('dms')]
    method = searches[0] if searches else 'dms'
    tried = _tuning(comparison, method, target, runs)
    settings = _settings(comparison, method, tried)
    return _found(comparison, method, target, seed, settings, runs)


def _scored(
    comparison: Comparison,
    method: str,
    target: float,
    seed: int,
    found: str,
    runs: Dict[str, Run],
) -> str:
    """Add the training of a structure, unless its weights are just cut."""
    if not (comparison.retrained or comparison.finetuned):
        return found
    name = f'trained-{found[len("found-") :]}'
    if runs[found].settings['seed'] != seed:
        name += f'-w{seed}'
    base = {'method': method, 'target': target, 'seed': seed}
    runs[name] = Run(name, 'trained', {**comparison.common, **base}, (found,))
    return name


def options_of(run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
    """Settings of a method: given, or the best of its grid.

    Args:
        run (Run): Finds a structure.
        needs (Mapping[str, Record]): Results of the tried settings, whose
            ``val`` decides.
    """
    if 'grid' not in run.settings:
        return dict(run.settings['options'])
    tried = run.settings['tried']
    best = max(tried, key=lambda name: needs[name]['result']['val'])
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


def table(rows: Sequence[Row], score: str = 'score') -> str:
    """Markdown of :func:`summarize`.

    Args:
        rows (Sequence[dict]): The rows.
        score (str): What the score is. Defaults to 'score'.
    """
    heads = [
        'target',
        'method',
        f'{score}: mean ± std',
        'each seed',
        'against uniform ± error',
        'resource',
        'images of the search',
        's of the search',
        's of the training',
        'settings',
    ]
    lines = [heads, ['---'] * len(heads)]
    # Some metrics are percent, some portions.
    percent = any(value > 1.5 for row in rows for value in row['scores'])
    digits = 2 if percent else 4
    for row in rows:
        gain = '–'
        if row.get('gain') is not None and row['method'] != 'uniform':
            gain = f'{row["gain"]:+.{digits}f} ± {row["error"]:.{digits}f}'
        options = ', '.join(f'{k}={v}' for k, v in row['options'].items())
        lines.append(
            [
                f'{row["target"]:g}',
                row['method'],
                f'{row["mean"]:.{digits}f} ± {row["std"]:.{digits}f}',
                ', '.join(f'{value:.{digits}f}' for value in row['scores']),
                gain,
                f'{row["resource"]:.4f}',
                f'{row["search_images"]:,.0f}',
                f'{row["search_seconds"]:.0f}',
                f'{row["train_seconds"]:.0f}',
                options or '–',
            ]
        )
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines)


def grid_table(records: Mapping[str, Record]) -> str:
    """Markdown of all settings that were tried, with validation scores."""
    tried = [
        record
        for record in records.values()
        if record['settings']['seed'] == TUNING_SEED
        and 'val' in record['result']
        and record['result'].get('options')
    ]
    if not tried:
        return ''
    lines = [['target', 'method', 'settings', 'validation'], ['---'] * 4]
    for record in tried:
        settings = record['settings']
        options = record['result']['options'].items()
        lines.append(
            [
                f'{settings["target"]:g}',
                settings['method'],
                ', '.join(f'{key}={value}' for key, value in options),
                f'{record["result"]["val"]:.2f}',
            ]
        )
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines)


def plot(rows: Sequence[Row], path: str, score: str = 'score') -> None:
    """Score against resource, and against the cost of finding and training.

    Args:
        rows (Sequence[dict]): Of :func:`summarize`.
        path (str): Image to write.
        score (str): What the score is. Defaults to 'score'.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5))
    for method in dict.fromkeys(row['method'] for row in rows):
        mine = [row for row in rows if row['method'] == method]
        means = [row['mean'] for row in mine]
        errors = [
            0.0 if math.isnan(row['std']) else row['std'] for row in mine
        ]
        costs = [row['search_seconds'] + row['train_seconds'] for row in mine]
        resources = [row['resource'] for row in mine]
        left.errorbar(
            resources, means, errors, marker='o', capsize=2, label=method
        )
        right.errorbar(costs, means, errors, fmt='o', capsize=2, label=method)
    left.set_xlabel('resource relative to the supernet')
    right.set_xlabel('processor seconds of search and training')
    left.set_ylabel(score)
    right.legend(fontsize='small')
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


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
    tried = grid_table(records)
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
