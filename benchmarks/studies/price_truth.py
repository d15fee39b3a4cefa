"""Are measured prices what narrowing a unit costs after retraining?

At the network narrowed uniformly to the bed's target every unit in turn is
narrowed further, and retrained: its true price is the test loss that this
adds, over the log-MACs that it saves. Beside it the prices that a search
measures at the same structure, early and late in the training of weights that
see soft masks. Last, what a search could find if it knew: the structure that
is best by the losses on validation images is retrained. One command, which
goes on where it was stopped:

    DMS_CIFAR10=cifar10.tar.xz python benchmarks/studies/price_truth.py \
        plain --seeds 0 1 2 --jobs 2
"""

import argparse
import itertools
import json
import math
import os.path as osp
import statistics
import sys
from typing import Any, Dict, List, Mapping, Sequence

import bed_runs
import beds
import torch
import torch.nn.functional as F

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.baselines.runs import Record, Run, Study
from dms_mmrazor.core import rank_correlation
from dms_mmrazor.files import write_text
from dms_mmrazor.search import StructureSearch
from dms_mmrazor.search.fitted_structure import fit_choices
from dms_mmrazor.search.structure_search import SIGNALS

WINDOWS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Ends of the windows of which prices are means: portions of a training."""

EXPONENT = 0.5
"""For the best structure: width k of a unit adds A · k^-EXPONENT to the loss.

Halving tells one number of a unit, A; the exponent is assumed.
"""

WINDOW = 60
"""Iterations of a window, at most all before its end."""


def plan(args: argparse.Namespace) -> List[Run]:
    """The network and each narrowed unit retrained, and prices measured."""
    bed = beds.BEDS[args.bed]
    common = {
        'bed': args.bed,
        'epochs': args.epochs or bed.epochs,
        'target': args.target or bed.target,
        'factor': args.factor,
    }
    _, mutator = beds.prepare(bed, 0, verify=False)
    units = [unit.name for unit in mutator.units]
    runs = []
    for seed in args.seeds:
        base = {**common, 'seed': seed}
        runs.append(Run(f'prices-s{seed}', 'prices', base))
        runs += [
            Run(
                f'narrowed-{u or "none"}-s{seed}',
                'narrowed',
                {**base, 'unit': u},
            )
            for u in ('', *units)
        ]
    narrowed = tuple(run.name for run in runs if run.kind == 'narrowed')
    runs += [
        Run(f'best-s{s}', 'best', {**common, 'seed': s}, narrowed)
        for s in args.seeds
    ]
    return runs


class Truth:
    """Does the runs."""

    def __call__(
        self, run: Run, needs: Mapping[str, Record]
    ) -> Dict[str, Any]:
        """Do one run."""
        beds.use_one_thread()
        settings = run.settings
        bed = beds.BEDS[settings['bed']]._replace(epochs=settings['epochs'])
        supernet, mutator = beds.prepare(bed, settings['seed'], verify=False)
        full = mutator.table.full['macs']
        choices = fit_choices(mutator, {'macs': settings['target'] * full}, 1)
        if run.kind == 'prices':
            mutator.set_choices(choices)
            return measured(supernet, mutator, bed, settings['seed'])
        if run.kind == 'best':
            added = added_losses(needs, 'val_loss')
            macs = settings['target'] * full
            choices = best_choices(mutator, choices, added, macs, settings)
        elif settings['unit']:
            kept = round(settings['factor'] * choices[settings['unit']])
            choices = {**choices, settings['unit']: max(kept, 1)}
        return retrained(mutator, bed, choices, settings['seed'])


def retrained(
    mutator: Any, bed: beds.Bed, choices: Dict[str, int], seed: int
) -> Dict[str, Any]:
    """Losses and scores of a structure trained from new weights."""
    data = beds.load_data()
    model = beds.subnet(bed, mutator.structure(choices), seed)
    trained = beds.train(model, bed, data['train'], seed)
    return {
        'kept': choices,
        'macs': mutator.resource_of('macs', choices),
        'val_loss': beds.mean_loss(model, data['val']),
        'val': beds.accuracy(model, data['val']),
        'loss': beds.mean_loss(model, data['test']),
        'score': beds.accuracy(model, data['test']),
        'images': trained.images,
    }


def added_losses(
    records: Mapping[str, Record], loss: str
) -> Dict[str, List[float]]:
    """By unit, what narrowing it adds to a loss, a number for each seed.

    The same seed has the same order of images: differences are paired.
    """
    by_seed: Dict[int, Dict[str, float]] = {}
    for record in records.values():
        settings = record['settings']
        if record['kind'] == 'narrowed':
            losses = by_seed.setdefault(settings['seed'], {})
            losses[settings['unit']] = record['result'][loss]
    units = [unit for unit in next(iter(by_seed.values())) if unit]
    return {
        unit: [losses[unit] - losses[''] for losses in by_seed.values()]
        for unit in units
    }


def best_choices(
    mutator: Any,
    start: Dict[str, int],
    added: Mapping[str, Sequence[float]],
    macs: float,
    settings: Mapping[str, Any],
) -> Dict[str, int]:
    """Widths that lose least by ``A · k^-EXPONENT``, within MACs.

    Exchanges of a channel of one unit for as many of others as it costs, the
    best first, until none gains.
    """
    rise = settings['factor'] ** -EXPONENT - 1
    worth = {
        unit: max(statistics.fmean(losses), 1e-3) / rise
        for unit, losses in added.items()
    }
    most = {unit.name: unit.max_kept for unit in mutator.units}

    def loss(kept: Mapping[str, int]) -> float:
        return sum(worth[u] * (kept[u] / start[u]) ** -EXPONENT for u in worth)

    def cost(kept: Mapping[str, int]) -> float:
        return mutator.resource_of('macs', dict(kept))

    def narrower(kept: Mapping[str, int], held: str) -> Dict[str, int]:
        """One channel less where a MAC saved costs least."""
        fewer = [
            {**kept, u: kept[u] - 1}
            for u in worth
            if u != held and kept[u] > 2
        ]
        return min(
            fewer,
            key=lambda new: (
                (loss(new) - loss(kept)) / (cost(kept) - cost(new))
            ),
        )

    best, found = dict(start), True
    while found:
        exchanged = []
        for unit in worth:
            if best[unit] < most[unit]:
                kept = {**best, unit: best[unit] + 1}
                while cost(kept) > macs:
                    kept = narrower(kept, unit)
                exchanged.append(kept)
        new = min(exchanged, key=loss, default=best)
        found = loss(new) < loss(best) - 1e-6
        best = new if found else best
    return best


def measured(
    supernet: torch.nn.Module, mutator: Any, bed: beds.Bed, seed: int
) -> Dict[str, Any]:
    """Prices at a structure that does not move, while weights are trained."""
    search = StructureSearch(mutator, {'signal': 'removal'}, supernet)
    search.set_constraints({'macs': 1.0})
    search.set_targets({'macs': math.inf})
    masks, number = mutator.masks, len(mutator.units)
    data = beds.load_data()['train']
    iterations = beds.iterations_of(bed, data)
    optimizer = beds.make_optimizer(supernet.train(), bed)
    signals: Dict[str, List[torch.Tensor]] = {s: [] for s in SIGNALS}
    for index, (images, labels) in enumerate(
        beds.batches(data, iterations, seed, bed.shift)
    ):
        search.begin()
        beds.set_lr(optimizer, bed, (index + 1) / iterations)
        optimizer.zero_grad()
        F.cross_entropy(supernet(images), labels).backward()
        optimizer.step()
        grad = masks.take_gradient(None)
        search.redundancy.finish(masks.topk)
        for signal, tasks in signals.items():
            tasks.append(search.task(grad, signal)[:number])
        share = search.shares()[:number]
        masks.update_importance(grad, mutator.static_scores())
    rows = {}
    for (signal, tasks), end in itertools.product(signals.items(), WINDOWS):
        last = max(round(end * iterations), 2)
        window = torch.stack(tasks[max(last - WINDOW, 0) : last])
        error = window.std(0) / math.sqrt(len(window))
        rows[f'{signal} at {end:g}'] = {
            'price': (window.mean(0) / share).tolist(),
            'error': (error / share).tolist(),
        }
    return {'units': [u.name for u in mutator.units], 'windows': rows}


def summarize(records: Mapping[str, Record]) -> Dict[str, Any]:
    """True prices, measured ones, their rank correlation, and scores."""
    of_kind: Dict[str, List[Record]] = {}
    for record in records.values():
        of_kind.setdefault(record['kind'], []).append(record)
    prices = [record['result'] for record in of_kind['prices']]
    units = prices[0]['units']
    macs = {
        record['settings']['unit']: record['result']['macs']
        for record in of_kind['narrowed']
    }
    added = added_losses(records, 'loss')
    truth, errors = [], []
    for unit in units:
        saved = math.log(macs[''] / macs[unit])
        true = [loss / saved for loss in added[unit]]
        truth.append(statistics.fmean(true))
        error = statistics.stdev(true) if len(true) > 1 else math.nan
        errors.append(error / math.sqrt(len(true)))
    windows = {}
    for end in prices[0]['windows']:
        columns = zip(*(result['windows'][end]['price'] for result in prices))
        mean = [statistics.fmean(column) for column in columns]
        windows[end] = {
            'price': mean,
            'correlation': rank_correlation(mean, truth),
        }
    return {
        'units': units,
        'truth': truth,
        'error': errors,
        'windows': windows,
        'scores': {
            'uniform': _scores(of_kind['narrowed'], unit=''),
            'by true prices': _scores(of_kind.get('best', [])),
        },
    }


def _scores(records: Sequence[Record], **settings: Any) -> List[float]:
    """Test scores of the records that have these settings."""
    return [
        record['result']['score']
        for record in records
        if all(record['settings'][k] == v for k, v in settings.items())
    ]


def table(summary: Mapping[str, Any]) -> str:
    """Markdown: a row for each unit, the correlations below."""
    ends = list(summary['windows'])

    def line(cells: Sequence[str]) -> str:
        return '| ' + ' | '.join(cells) + ' |'

    heads = ['unit', 'true price ± error', *ends]
    lines = [line(heads), line(['---'] * len(heads))]
    for index, unit in enumerate(summary['units']):
        true = f'{summary["truth"][index]:.3f} ± {summary["error"][index]:.3f}'
        prices = [summary['windows'][e]['price'][index] for e in ends]
        lines.append(line([unit, true, *(f'{p:.3f}' for p in prices)]))
    found = [f'{summary["windows"][e]["correlation"]:.2f}' for e in ends]
    lines.append(line(['rank correlation with the truth', '', *found]))
    return '\n'.join(lines)


def scores(summary: Mapping[str, Any]) -> str:
    """A line for each structure that was trained as it is."""
    return '\n'.join(
        f'{name}: top-1 {statistics.fmean(found):.2f}, of {len(found)}'
        for name, found in summary['scores'].items()
        if found
    )


def main() -> None:
    """Plan, do what is missing, write the table."""
    parser = bed_runs.bed_parser(__doc__)
    parser.add_argument('--factor', type=float, default=0.5)
    args = parser.parse_args()
    folder = args.out_dir or osp.join('work_dirs', f'price_truth-{args.bed}')
    study = Study(folder, plan(args))
    if args.run:
        study.perform(args.run, Truth())
        return
    records = study.execute([sys.executable, *sys.argv], args.jobs)
    summary = summarize(records)
    text = f'{table(summary)}\n\n{scores(summary)}'
    data = {'summary': summary, 'runs': list(records.values())}
    for name, content in (
        ('price_truth.md', text),
        ('price_truth.json', json.dumps(data, indent=1)),
    ):
        write_text(osp.join(folder, name), f'{content}\n')
    print(text)


if __name__ == '__main__':
    main()
