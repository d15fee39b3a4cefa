"""Study 3: which score of a short training ranks structures best.

Structures of equal MACs are trained to the end with several seeds (the truth,
on the test set) and briefly in several ways (the scores, on training and
validation data alone). One command, which goes on where it was stopped:

    DMS_CIFAR10=cifar10.tar.xz python \
        benchmarks/studies/ranking.py residual --structures 25 --jobs 2

Writes ranking-study.md, .json and .png.
"""

import argparse
import itertools
import json
import math
import os.path as osp
import statistics
import sys
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import bed_runs
import beds
import torch
import torch.nn.functional as F
from torch import nn

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.baselines.runs import Record, Run, Study, environment
from dms_mmrazor.baselines.structures import Request, random_structure
from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import write_text
from dms_mmrazor.ranking import agreement, reduced_data
from dms_mmrazor.ranking.reduced_network import (
    fewer_blocks,
    lower_resolution,
)
from dms_mmrazor.ranking.report import seconds_of
from dms_mmrazor.ranking.scores import SCORES, Trajectory, score_all
from dms_mmrazor.ranking.trainings import PlainRecipe
from dms_mmrazor.search.export import uniform_structure
from dms_mmrazor.subnet import (
    load_structure,
    prune,
    save_structure,
)

EQUAL = 0.01
"""Candidates are within this portion of the target's MACs."""

TRIES = 20
CLASSES = 4
"""Of ten, in arms with fewer classes."""

RESOLUTION = {'transformer': 0.75}
"""Portion of the sides in arms with a reduced network; 0.5 elsewhere."""

Row = Dict[str, Any]
Columns = Dict[str, List[Tuple[float, ...]]]


class Arm(NamedTuple):
    """A way to train briefly.

    Attributes:
        data (str): 'whole', 'part' (a tenth), 'random-classes' or
            'clusters' (four classes of ten).
        small (bool): Whether the network is reduced. Defaults to False.
        init (str): 'default', or 'xavier' for weights drawn anew after the
            cut. Defaults to 'default'.
    """

    data: str
    small: bool = False
    init: str = 'default'


ARMS: Dict[str, Arm] = {
    'whole': Arm('whole'),
    'RD part': Arm('part'),
    'RD random classes': Arm('random-classes'),
    'RD clusters': Arm('clusters'),
    'RA': Arm('whole', small=True),
    'RD part + RA': Arm('part', small=True),
    'other init': Arm('whole', init='xavier'),
}
"""The first one is run with all lengths, the others with one of them."""


class BedLoader:
    """Batches of one epoch of a bed, in an order that torch's seed draws.

    Args:
        split (beds.Split): What is learned.
        bed (beds.Bed): Its augmentation.
    """

    def __init__(self, split: beds.Split, bed: beds.Bed) -> None:
        self.split = split
        self.bed = bed

    def __len__(self) -> int:
        return max(len(self.split.labels) // beds.BATCH, 1)

    def __iter__(self) -> Iterator[beds.Split]:
        seed = int(torch.randint(2**31, ()))
        return beds.batches(self.split, len(self), seed, self.bed.shift)


def plan(args: argparse.Namespace) -> List[Run]:
    """All runs, needs first.

    Kinds: 'structures' writes the candidates, 'full' trains one to the end,
    'short' trains one in all arms.
    """
    bed = beds.BEDS[args.bed]
    common = {
        'bed': args.bed,
        'structures': args.structures,
        'epochs': args.epochs or bed.epochs,
    }
    short = {**common, 'lengths': list(args.short)}
    runs = [Run('structures', 'structures', common)]
    names = range(args.structures)
    kinds = (
        ('full', common, args.seeds),
        ('short', short, args.short_seeds or args.seeds),
    )
    for kind, settings, seeds in kinds:
        for seed in seeds:
            for index in names:
                needs = ['structures']
                if kind == 'short':
                    # Its network has clustered the classes.
                    needs.append(_name('full', 0, args.seeds[0]))
                mine = {**settings, 'candidate': index, 'seed': seed}
                name = _name(kind, index, seed)
                runs.append(Run(name, kind, mine, tuple(needs)))
    return runs


def _name(kind: str, candidate: int, seed: int) -> str:
    return f'{kind}-c{candidate:02d}-s{seed}'


class RankingRuns(bed_runs.RunsByKind):
    """Does the runs of the study."""

    def structures(
        self, run: Run, needs: Mapping[str, Record]
    ) -> Dict[str, Any]:
        """Draw candidates: the uniform one, and random ones beside it.

        Each is within 1 % of the target's MACs and unlike the others.
        """
        bed = self._bed(run)
        _, mutator = beds.prepare(bed, 0)
        target = bed.target * mutator.table.full['macs']
        targets = {'macs': target}
        found = [uniform_structure(mutator, targets, 1)]
        for seed in range(TRIES * run.settings['structures']):
            if len(found) == run.settings['structures']:
                break
            request = Request(targets, divisor=1, seed=seed)
            new = random_structure(mutator, request)
            close = abs(new.resources['macs']['subnet'] / target - 1) <= EQUAL
            if close and all(new.units != old.units for old in found):
                found.append(new)
        if len(found) < run.settings['structures']:
            raise DMSError(
                f'--structures: only {len(found)} within {EQUAL:.0%} of the '
                'target were found; ask for fewer.'
            )
        for index, structure in enumerate(found):
            save_structure(structure, self._structure(index))
        return {
            'macs': [s.resources['macs']['subnet'] for s in found],
            'params': [s.resources['params']['subnet'] for s in found],
        }

    def full(self, run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
        """Train a candidate to the end."""
        bed, seed = self._bed(run), run.settings['seed']
        torch.manual_seed(seed)
        model = self._build(run, ARMS['whole'])
        trained = beds.train(model, bed, self.data['train'], seed)
        result = {
            'seconds': trained.seconds,
            'losses': trained.losses,
            'val': beds.accuracy(model, self.data['val']),
            'test': beds.accuracy(model, self.data['test']),
        }
        if run.settings['candidate'] == 0:
            result['classes'] = self._clustered(model, bed)
        return result

    def short(self, run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
        """Train a candidate briefly, in all arms."""
        bed, lengths = self._bed(run), run.settings['lengths']
        middle = lengths[len(lengths) // 2]
        clustered = needs[run.needs[1]]['result']['classes']
        found: Dict[str, Any] = {}
        for name, arm in ARMS.items():
            for length in lengths if name == 'whole' else [middle]:
                train, val = self._data(arm, clustered)
                recipe = _recipe(bed, train, val, length, self.data['train'])
                trajectory = recipe(
                    lambda arm=arm: self._build(run, arm),
                    run.settings['seed'],
                )
                found[f'{name}/{length:g}'] = trajectory._asdict()
        return found

    def _data(
        self, arm: Arm, clustered: List[int]
    ) -> Tuple[beds.Split, beds.Split]:
        """What an arm is trained and validated on."""
        train, val = self.data['train'], self.data['val']
        if arm.data == 'part':
            index = reduced_data.random_part(len(train.labels), 0.1)
            return _chosen(train, torch.tensor(index)), val
        if arm.data == 'whole':
            return train, val
        if arm.data == 'random-classes':
            classes = reduced_data.random_classes(10, CLASSES)
        else:
            classes = clustered
        kept = [
            _chosen(s, torch.isin(s.labels, torch.tensor(classes)).nonzero())
            for s in (train, val)
        ]
        return kept[0], kept[1]

    def _clustered(self, model: nn.Module, bed: beds.Bed) -> List[int]:
        """Classes unlike each other by a trained network's outputs."""
        batches = beds.batches(self.data['val'], 20, 0, bed.shift)
        vectors = reduced_data.class_vectors(model, batches)
        return reduced_data.representative_classes(vectors, CLASSES)

    def _build(self, run: Run, arm: Arm) -> nn.Module:
        """A candidate with weights by torch's seed."""
        bed = beds.BEDS[run.settings['bed']]
        structure = load_structure(self._structure(run.settings['candidate']))
        if arm.small:
            structure = fewer_blocks(structure, 0.5)
        model = prune(bed.build(), structure)
        if arm.init == 'xavier':
            for module in model.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    nn.init.xavier_normal_(module.weight)
        if arm.small:
            lower_resolution(model, RESOLUTION.get(run.settings['bed'], 0.5))
        return model

    def _bed(self, run: Run) -> beds.Bed:
        bed = beds.BEDS[run.settings['bed']]
        return bed._replace(epochs=run.settings['epochs'])

    def _structure(self, index: int) -> str:
        return self.study.file(f'c{index:02d}.yaml')


def _chosen(split: beds.Split, index: torch.Tensor) -> beds.Split:
    index = index.flatten()
    return beds.Split(split.images[index], split.labels[index])


def _recipe(
    bed: beds.Bed,
    train: beds.Split,
    val: beds.Split,
    length: float,
    whole: beds.Split,
) -> PlainRecipe:
    """The bed's training, as many images as ``length`` whole epochs."""
    return PlainRecipe(
        BedLoader(train, bed),
        lambda model, batch: F.cross_entropy(
            model(batch.images), batch.labels
        ),
        lambda model: beds.make_optimizer(model, bed),
        length * len(whole.labels) / len(train.labels),
        lambda model: beds.accuracy(model, val),
        _warm_cosine,
    )


def _warm_cosine(optimizer: torch.optim.Optimizer, iterations: int) -> Any:
    """The schedule of :func:`beds.set_lr`."""

    def factor(iteration: int) -> float:
        progress = (iteration + 1) / iterations
        return min(progress / 0.05, (1 + math.cos(math.pi * progress)) / 2)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def columns(
    records: Mapping[str, Record], seeds: Sequence[int], number: int
) -> Tuple[Columns, Dict[str, float]]:
    """Scores of all candidates by arm and score, and what they took.

    Returns:
        tuple: 'arm/length/score' → of each candidate a value by seed; the
        same key → mean seconds of one training and what the score takes.
    """
    found: Dict[str, List[List[float]]] = {}
    seconds: Dict[str, List[float]] = {}
    for seed in seeds:
        results = [
            records[_name('short', index, seed)]['result']
            for index in range(number)
        ]
        for arm in results[0]:
            trajectories = {
                str(index): Trajectory(**result[arm])
                for index, result in enumerate(results)
            }
            for score, column in score_all(trajectories).items():
                key = f'{arm}/{score}'
                rows = found.setdefault(key, [[] for _ in range(number)])
                for row, value in zip(rows, column.values()):
                    row.append(value)
                seconds.setdefault(key, []).extend(
                    seconds_of(t, score) for t in trajectories.values()
                )
    means = {key: statistics.fmean(values) for key, values in seconds.items()}
    return {k: [tuple(r) for r in rows] for k, rows in found.items()}, means


def of_seeds(
    statistic: Callable[[Sequence[float], Sequence[float]], float],
) -> Callable[[Sequence[Any], Sequence[float]], float]:
    """A statistic of one seed's scores, averaged over the seeds."""

    def mean(rows: Sequence[Any], truth: Sequence[float]) -> float:
        values = [statistic(column, truth) for column in zip(*rows)]
        values = [value for value in values if math.isfinite(value)]
        return statistics.fmean(values) if values else math.nan

    return mean


def analyze(
    records: Mapping[str, Record],
    seeds: Sequence[int],
    number: int,
    resamples: int = agreement.RESAMPLES,
) -> Dict[str, Any]:
    """Tables of the study.

    Args:
        records (Mapping[str, Record]): Of all runs.
        seeds (Sequence[int]): Of full trainings, and of the short ones
            that there are.
        number (int): Of candidates.
        resamples (int): Of the bootstrap. Defaults to 2000.
    """
    full = {
        seed: [
            records[_name('full', index, seed)]['result']['test']
            for index in range(number)
        ]
        for seed in seeds
    }
    truth = [statistics.fmean(row) for row in zip(*full.values())]
    short = [seed for seed in seeds if _name('short', 0, seed) in records]
    scores, seconds = columns(records, short, number)
    rows: List[Row] = []
    for key, values in scores.items():
        arm, length, score = key.rsplit('/', 2)
        rows.append(
            {
                'arm': arm,
                'epochs': float(length),
                'score': score,
                'seconds': seconds[key],
                'tau': agreement.bootstrap(
                    values, truth, of_seeds(agreement.kendall), resamples
                ),
                'best_third': of_seeds(agreement.best_third)(values, truth),
                'regret': of_seeds(agreement.regret)(values, truth),
                'between_seeds': agreement.between_seeds(
                    dict(enumerate(zip(*values)))
                ),
            }
        )
    params = records['structures']['result']['params']
    first = [_name('full', index, seeds[0]) for index in range(1, number)]
    return {
        'candidates': number,
        'drawn': drawn([records[name]['result'] for name in first]),
        'truth': {
            'mean': truth,
            'by_seed': full,
            'ceiling': agreement.ceiling(full)._asdict(),
            'regret_of_a_random_choice': max(truth) - statistics.fmean(truth),
        },
        'parameters_alone': agreement.kendall(params, truth),
        'rows': rows,
        'equal_seconds': equal_seconds(rows),
    }


def drawn(results: Sequence[Mapping[str, float]]) -> Dict[str, float]:
    """What drawing structures is worth: all, the best of four, the best.

    The best of four is chosen by validation, in every choice of four.

    Args:
        results (Sequence[dict]): ``val`` and ``test`` of full trainings.
    """
    tests = [result['test'] for result in results]
    chosen = [
        max(four, key=lambda result: result['val'])['test']
        for four in itertools.combinations(results, min(4, len(results)))
    ]
    return {
        'mean': statistics.fmean(tests),
        'std': statistics.stdev(tests) if len(tests) > 1 else math.nan,
        'median': statistics.median(tests),
        'best_of_four': statistics.fmean(chosen),
        'best_of_four_std': statistics.pstdev(chosen),
        'best': max(tests),
    }


def equal_seconds(rows: Sequence[Row]) -> List[Row]:
    """τ of every score where all cost the same, with whole data.

    Between the lengths that were run τ is linear in the logarithm of the
    seconds.
    """
    points: Dict[str, Dict[float, float]] = {}
    for row in rows:
        if row['arm'] == 'whole':
            taus = points.setdefault(row['score'], {})
            taus[row['seconds']] = row['tau'].value
    low = max(min(taus) for taus in points.values())
    high = min(max(taus) for taus in points.values())
    if high <= low:
        return []
    budgets = [low, math.sqrt(low * high), high]
    return [
        {
            'seconds': budget,
            **{
                score: agreement.at_seconds(taus, budget)
                for score, taus in points.items()
            },
        }
        for budget in budgets
    ]


def text_of(found: Mapping[str, Any]) -> str:
    """Markdown of :func:`analyze`."""
    truth, drawn = found['truth'], found['drawn']
    ceiling = truth['ceiling']
    lines = [
        f'{found["candidates"]} structures; top-1 of full trainings '
        f'{min(truth["mean"]):.2f} to {max(truth["mean"]):.2f}, noise of a '
        f'seed {ceiling["noise"]:.2f}, spread of the true values '
        f'{ceiling["spread"]:.2f}.',
        f'τ of two full trainings of unlike seeds '
        f'{ceiling["between_seeds"]:.2f}; a perfect score would reach '
        f'{ceiling["tau"]:.2f} (ceiling). Parameters alone: '
        f'{found["parameters_alone"]:.2f}. Regret of a random choice: '
        f'{truth["regret_of_a_random_choice"]:.2f}.',
        f'Drawn ones (all but the uniform first): {drawn["mean"]:.2f} ± '
        f'{drawn["std"]:.2f}, median {drawn["median"]:.2f}; the best of four '
        f'by validation {drawn["best_of_four"]:.2f} ± '
        f'{drawn["best_of_four_std"]:.2f}; the best {drawn["best"]:.2f}.',
        '',
    ]
    heads = ['arm', 'epochs', 'score', 's', 'τ (95 %)', 'τ of the best third']
    heads += ['regret', 'τ between seeds']
    table = [heads, ['---'] * len(heads)]
    for row in found['rows']:
        table.append(
            [
                row['arm'],
                f'{row["epochs"]:g}',
                row['score'],
                f'{row["seconds"]:.1f}',
                str(row['tau']),
                f'{row["best_third"]:.2f}',
                f'{row["regret"]:.2f}',
                f'{row["between_seeds"]:.2f}',
            ]
        )
    lines += ['| ' + ' | '.join(cells) + ' |' for cells in table]
    if found['equal_seconds']:
        names = [n for n in SCORES if n in found['equal_seconds'][0]]
        table = [['seconds', *names], ['---'] * (len(names) + 1)]
        for row in found['equal_seconds']:
            values = [f'{row[name]:.2f}' for name in names]
            table.append([f'{row["seconds"]:.1f}', *values])
        lines += ['', 'τ at equal seconds, whole data:', '']
        lines += ['| ' + ' | '.join(cells) + ' |' for cells in table]
    return '\n'.join(lines)


def plot(found: Mapping[str, Any], path: str) -> None:
    """τ against seconds: scores on whole data, and arms by one score."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for score in SCORES:
        rows = [
            r
            for r in found['rows']
            if r['arm'] == 'whole' and r['score'] == score
        ]
        taus = [r['tau'] for r in rows]
        errors = [
            [max(t.value - t.low, 0) for t in taus],
            [max(t.high - t.value, 0) for t in taus],
        ]
        axes[0].errorbar(
            [r['seconds'] for r in rows],
            [t.value for t in taus],
            errors,
            marker='o',
            capsize=2,
            label=score,
        )
    for arm in ARMS:
        rows = [
            r
            for r in found['rows']
            if r['arm'] == arm and r['score'] in ('accuracy', 'landscape')
        ]
        axes[1].plot(
            [r['seconds'] for r in rows],
            [r['tau'].value for r in rows],
            'o',
            label=arm,
        )
    for axis in axes:
        axis.axhline(found['truth']['ceiling']['tau'], ls=':', color='gray')
        axis.set_xlabel('processor seconds of a candidate')
        axis.legend(fontsize='small')
    axes[0].set_ylabel("Kendall's τ with full training")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def write(
    found: Dict[str, Any], records: Mapping[str, Record], folder: str
) -> None:
    """Write tables, all runs and the plot."""
    base = osp.join(folder, 'ranking-study')
    text = text_of(found)
    rows = [{**row, 'tau': row['tau']._asdict()} for row in found['rows']]
    data = {
        'environment': environment(),
        **found,
        'rows': rows,
        'runs': list(records.values()),
    }
    for suffix, content in (
        ('.md', text),
        ('.json', json.dumps(data, indent=1)),
    ):
        write_text(base + suffix, f'{content}\n')
    plot(found, f'{base}.png')
    print(f'{text}\nWrote {base}.md, {base}.json and {base}.png.')


def parse_args(arguments: Optional[Sequence[str]] = None) -> Any:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('bed', choices=list(beds.BEDS))
    parser.add_argument('--structures', type=int, default=25)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    parser.add_argument(
        '--short-seeds',
        type=int,
        nargs='+',
        help='of the short trainings; all --seeds if not given',
    )
    parser.add_argument(
        '--short',
        type=float,
        nargs='+',
        default=[0.25, 0.5, 1.0],
        help='epochs of the short trainings; arms beside whole data have '
        'the middle one',
    )
    parser.add_argument('--epochs', type=float, help="instead of the bed's")
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--out-dir')
    parser.add_argument('--run', help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Plan, do what is missing, write the tables and the plot."""
    args = parse_args()
    folder = args.out_dir or osp.join('work_dirs', f'ranking-{args.bed}')
    study = Study(folder, plan(args))
    if args.run:
        study.perform(args.run, RankingRuns(study))
        return
    beds.load_data()  # decoded once, not by every process
    records = study.execute([sys.executable, *sys.argv], args.jobs)
    found = analyze(records, args.seeds, args.structures)
    write(found, records, folder)


if __name__ == '__main__':
    main()
