"""A family from one search, against a search for each of its networks.

Four arms for every seed and budget, all retrained alike from new weights:
*family*, one search whose target stops at each budget; *single*, a search of
the same length to each budget alone; *short*, single searches that together
cost what the family does; *uniform*, no search. Searches start from the
trained whole network, whose training is nobody's cost, with a quarter of the
learning rate. One command, which goes on where it was stopped:

    DMS_CIFAR10=cifar10.tar.xz python benchmarks/studies/family.py residual
"""

import argparse
import os.path as osp
import statistics
import sys
import time
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import bed_runs
import beds
import searches
import torch

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.baselines.runs import Record, Run, Study
from dms_mmrazor.files import write_text
from dms_mmrazor.search.export import uniform_structure
from dms_mmrazor.subnet import load_structure, save_structure

BUDGETS = (0.75, 0.5, 0.25)
ARMS = ('family', 'single', 'short', 'uniform')
PORTION = 0.1
"""Images of the family's search relative to one retraining."""

OPTIONS = {'weights_lr': 0.25}
"""Of the searches; as in the study `trained_first`."""


def plan(args: argparse.Namespace) -> List[Run]:
    """Whole networks, searches, the training of all that they find."""
    epochs = args.epochs or beds.BEDS[args.bed].epochs
    budgets = sorted(args.budgets, reverse=True)
    common = {
        'bed': args.bed,
        'epochs': epochs,
        'divisor': args.divisor,
        'retrained': True,  # weights are trained during a search
    }
    runs = []
    for seed in args.seeds:
        whole = f'supernet-s{seed}'
        runs.append(Run(whole, 'supernet', {**common, 'seed': seed}))
        for arm in ARMS:
            length = args.search_epochs or PORTION * epochs
            length /= len(budgets) if arm == 'short' else 1
            base = {**common, 'arm': arm, 'seed': seed}
            for aims in _aims(arm, budgets):
                found = f'found-{arm}-{_label(aims)}-s{seed}'
                search = {**base, 'budgets': aims, 'search_epochs': length}
                needs = () if arm == 'uniform' else (whole,)
                runs.append(Run(found, 'found', search, needs))
                runs += [
                    Run(
                        f'trained-{arm}-t{budget:g}-s{seed}',
                        'trained',
                        {**base, 'budget': budget},
                        (found,),
                    )
                    for budget in aims
                ]
    return runs


def _aims(arm: str, budgets: Sequence[float]) -> List[List[float]]:
    """Budgets of each search of an arm."""
    if arm == 'family':
        return [list(budgets)]
    return [[budget] for budget in budgets]


def _label(aims: Sequence[float]) -> str:
    return '-'.join(f't{aim:g}' for aim in aims)


class FamilyRuns(bed_runs.RunsByKind):
    """Does the runs."""

    def supernet(
        self, run: Run, needs: Mapping[str, Record]
    ) -> Dict[str, Any]:
        """Train the whole network."""
        settings = run.settings
        bed = beds.BEDS[settings['bed']]._replace(epochs=settings['epochs'])
        model = beds.new_network(bed, settings['seed'])
        beds.train(model, bed, self.data['train'], settings['seed'])
        weights = self.study.file(f'{run.name}.pth')
        torch.save(model.state_dict(), weights)
        score = beds.accuracy(model, self.data['test'])
        return {'weights': weights, 'score': score}

    def found(self, run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
        """One search, to one budget or through several, or none."""
        settings = run.settings
        bed = beds.BEDS[settings['bed']]
        bed = bed._replace(epochs=settings['search_epochs'])
        weights = [record['result']['weights'] for record in needs.values()]
        started = time.process_time()
        supernet, mutator = beds.prepare(bed, settings['seed'], *weights)
        *milestones, last = settings['budgets']
        targets = {'macs': last * mutator.table.full['macs']}
        if settings['arm'] == 'uniform':
            divisor = settings['divisor']
            structure = uniform_structure(mutator, targets, divisor)
            found, images = {'subnet': structure}, 0
        else:
            found, images = searches.search_family(
                supernet,
                mutator,
                bed,
                self.data['train'],
                targets,
                settings,
                OPTIONS,
                milestones,
            )
        cost = round(time.process_time() - started, 1)
        rows = {}
        for budget, structure in zip(settings['budgets'], found.values()):
            path = self.study.file(f'{run.name}-{budget:g}.yaml')
            save_structure(structure, path)
            rows[f'{budget:g}'] = {
                'structure': path,
                'ratio': structure.resources['macs']['ratio'],
                'kept': bed_runs.describe(structure),
            }
        return {'found': rows, 'images': images, 'cost': cost}

    def trained(self, run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
        """Train what was found from new weights."""
        (base,) = needs.values()
        settings = run.settings
        bed = beds.BEDS[settings['bed']]
        bed = bed._replace(epochs=settings['epochs'])
        row = base['result']['found'][f'{settings["budget"]:g}']
        structure = load_structure(row['structure'])
        model = beds.subnet(bed, structure, settings['seed'])
        trained = beds.train(model, bed, self.data['train'], settings['seed'])
        return {
            'ratio': row['ratio'],
            'images': trained.images,
            'val': beds.accuracy(model, self.data['val']),
            'score': beds.accuracy(model, self.data['test']),
        }


def table(records: Mapping[str, Record]) -> str:
    """Markdown: an arm a row; top-1 by budget, and what the searches cost."""
    rows = [r for r in records.values() if r['kind'] == 'trained']
    budgets = list(dict.fromkeys(r['settings']['budget'] for r in rows))
    names = [f'top-1 at {budget:.0%} of the MACs' for budget in budgets]
    names += ['ratios, least to most', 'images of its searches', 'seconds']
    lines = [f'| arm | {" | ".join(names)} |']
    lines.append('| --- ' * (len(names) + 1) + '|')
    for arm in ARMS:
        mine = [r for r in rows if r['settings']['arm'] == arm]
        if not mine:
            continue
        cells = [_mean_of(mine, budget) for budget in budgets]
        ratios = [r['result']['ratio'] / r['settings']['budget'] for r in mine]
        cells.append(f'{min(ratios):.4f} to {max(ratios):.4f} of each budget')
        images, seconds = _cost(records, arm)
        cells += [f'{images:,.0f}', f'{seconds:.0f}']
        lines.append(f'| {arm} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def _mean_of(rows: Sequence[Record], budget: float) -> str:
    scores = [
        row['result']['score']
        for row in rows
        if row['settings']['budget'] == budget
    ]
    spread = f' ± {statistics.stdev(scores):.2f}' if len(scores) > 1 else ''
    return f'{statistics.fmean(scores):.2f}{spread}'


def _cost(records: Mapping[str, Record], arm: str) -> Tuple[float, float]:
    """Images and processor seconds of an arm's searches, of one seed."""
    found = [
        r
        for r in records.values()
        if r['kind'] == 'found' and r['settings']['arm'] == arm
    ]
    seeds = len({r['settings']['seed'] for r in found})
    images, seconds = (
        sum(r['result'][key] for r in found) / seeds
        for key in ('images', 'cost')
    )
    return images, seconds


def main() -> None:
    """Plan, do what is missing, write the table."""
    parser = bed_runs.bed_parser(__doc__, has_target=False)
    parser.add_argument(
        '--budgets', type=float, nargs='+', default=list(BUDGETS)
    )
    parser.add_argument(
        '--search-epochs',
        type=float,
        help="of the family's search; a tenth of a training",
    )
    parser.add_argument('--divisor', type=int, default=1)
    args = parser.parse_args()
    folder = args.out_dir or osp.join('work_dirs', f'family-{args.bed}')
    study = Study(folder, plan(args))
    if args.run:
        study.perform(args.run, FamilyRuns(study))
        return
    records = study.execute([sys.executable, *sys.argv], args.jobs)
    text = table(records)
    write_text(osp.join(folder, 'family.md'), f'{text}\n')
    print(text)


if __name__ == '__main__':
    main()
