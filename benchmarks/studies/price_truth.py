"""Are measured prices what narrowing a unit costs after retraining?

At the network narrowed uniformly to the bed's target every unit in turn is
narrowed further, and retrained: its true price is the test loss that this
adds, over the log-MACs that it saves. Beside it the prices that a search
measures at the same structure, early and late in the training of weights that
see soft masks. One command, which goes on where it was stopped:

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
        return retrained(mutator, bed, choices, settings)


def retrained(
    mutator: Any,
    bed: beds.Bed,
    choices: Dict[str, int],
    settings: Mapping[str, Any],
) -> Dict[str, Any]:
    """Test loss and score of a structure with one unit narrowed."""
    if settings['unit']:
        kept = round(settings['factor'] * choices[settings['unit']])
        choices = {**choices, settings['unit']: max(kept, 1)}
    data = beds.load_data()
    structure = mutator.structure(choices)
    model = beds.subnet(bed, structure, settings['seed'])
    trained = beds.train(model, bed, data['train'], settings['seed'])
    return {
        'macs': mutator.resource_of('macs', choices),
        'loss': beds.mean_loss(model, data['test']),
        'score': beds.accuracy(model, data['test']),
        'images': trained.images,
    }


def measured(
    supernet: torch.nn.Module, mutator: Any, bed: beds.Bed, seed: int
) -> Dict[str, Any]:
    """Prices at a structure that does not move, while weights are trained."""
    search = StructureSearch(mutator)
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
    """True prices, measured ones, and their rank correlation."""
    of_kind: Dict[str, List[Record]] = {'prices': [], 'narrowed': []}
    for record in records.values():
        of_kind[record['kind']].append(record)
    units = of_kind['prices'][0]['result']['units']
    losses: Dict[str, List[float]] = {}
    macs: Dict[str, float] = {}
    for record in of_kind['narrowed']:
        unit = record['settings']['unit']
        losses.setdefault(unit, []).append(record['result']['loss'])
        macs[unit] = record['result']['macs']
    truth, errors = [], []
    for unit in units:
        rows = list(zip(losses[unit], losses['']))
        saved = math.log(macs['']) - math.log(macs[unit])
        # The same seed has the same order of images: differences are paired.
        added = [(narrowed - base) / saved for narrowed, base in rows]
        truth.append(statistics.fmean(added))
        several = len(added) > 1
        error = statistics.stdev(added) if several else math.nan
        errors.append(error / math.sqrt(len(added)))
    windows = {}
    for end in of_kind['prices'][0]['result']['windows']:
        prices = [
            statistics.fmean(column)
            for column in zip(
                *(
                    r['result']['windows'][end]['price']
                    for r in of_kind['prices']
                )
            )
        ]
        windows[end] = {
            'price': prices,
            'correlation': rank_correlation(prices, truth),
        }
    return {
        'units': units,
        'truth': truth,
        'error': errors,
        'windows': windows,
    }


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
    text = table(summary)
    data = {'summary': summary, 'runs': list(records.values())}
    for name, content in (
        ('price_truth.md', text),
        ('price_truth.json', json.dumps(data, indent=1)),
    ):
        write_text(osp.join(folder, name), f'{content}\n')
    print(text)


if __name__ == '__main__':
    main()
