"""Speed: measured latency beside MACs, and which of them to constrain.

For each seed a search by MACs, and one by latency whose target is the latency
that the first one's network has; both networks are retrained. One command,
which goes on where it was stopped:

    DMS_CIFAR10=cifar10.tar.xz python benchmarks/studies/speed.py mobile

Latencies are those of one image on one thread of this machine's processor;
the networks of all seeds are measured in turns at the end.
"""

import argparse
import os.path as osp
import statistics
import sys
from typing import Any, Dict, List, Mapping, NamedTuple

import bed_runs
import beds
import searches
import torch
from torch import nn

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.baselines.runs import Record, Run, Study
from dms_mmrazor.files import write_text
from dms_mmrazor.latency import (
    Settings,
    compare_structures,
    load_latency_table,
    profile_latency,
    save_latency_table,
)
from dms_mmrazor.subnet import load_structure, save_structure

KINDS = ('macs', 'latency')


class Supernet(NamedTuple):
    """What is measured."""

    architecture: nn.Module
    mutator: Any


def plan(args: argparse.Namespace) -> List[Run]:
    """A table, the searches by MACs, those by latency, the trainings."""
    bed = beds.BEDS[args.bed]
    epochs = args.epochs or bed.epochs
    common = {
        'bed': args.bed,
        'epochs': epochs,
        'search_epochs': epochs / 10,
        'target': args.target or bed.target,
        'divisor': args.divisor,
        'retrained': True,
    }
    runs = [Run('table', 'table', common)]
    for seed in args.seeds:
        needs = ['table']
        for kind in KINDS:
            found = f'found-{kind}-s{seed}'
            base = {**common, 'kind': kind, 'seed': seed}
            runs.append(Run(found, 'found', base, tuple(needs)))
            trained = f'trained-{kind}-s{seed}'
            runs.append(Run(trained, 'trained', base, (found,)))
            needs.append(found)
    return runs


class SpeedRuns(bed_runs.RunsByKind):
    """Does the runs."""

    def table(self, run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
        """Measure the layers of the supernet."""
        parts = Supernet(*beds.prepare(beds.BEDS[run.settings['bed']], 0))
        path = self.study.file('latency.yaml')
        divisor = run.settings['divisor']
        table = profile_latency(parts, Settings(threads=1, divisor=divisor))
        save_latency_table(table, path)
        return {'table': path, 'supernet': table.supernet}

    def found(self, run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
        """Search by MACs, or by the latency that this has led to."""
        settings = run.settings
        bed = beds.BEDS[settings['bed']]
        bed = bed._replace(epochs=settings['search_epochs'])
        supernet, mutator = beds.prepare(bed, settings['seed'])
        table = load_latency_table(needs['table']['result']['table'])
        mutator.set_latency(table.fits)
        target = settings['target'] * mutator.table.full['macs']
        if settings['kind'] == 'latency':
            others = [r['result'] for n, r in needs.items() if n != 'table']
            target = others[0]['latency']
        structure, images = searches.search(
            supernet,
            mutator,
            bed,
            self.data['train'],
            {settings['kind']: target},
            settings,
            {},
        )
        path = self.study.file(f'{run.name}.yaml')
        save_structure(structure, path)
        full = mutator.table.full['macs']
        return {
            'structure': path,
            'images': images,
            'macs': mutator.resource('macs') / full,
            'latency': mutator.resource('latency'),
            'kept': bed_runs.describe(structure),
        }

    def trained(self, run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
        """Train what was found from new weights."""
        (base,) = needs.values()
        settings, data = run.settings, self.data
        bed = beds.BEDS[settings['bed']]
        bed = bed._replace(epochs=settings['epochs'])
        structure = load_structure(base['result']['structure'])
        model = beds.subnet(bed, structure, settings['seed'])
        trained = beds.train(model, bed, data['train'], settings['seed'])
        score = beds.accuracy(model, data['test'])
        return {'score': score, 'images': trained.images}


def measure(records: Mapping[str, Record], bed: beds.Bed) -> str:
    """Markdown: top-1, MACs, predicted and measured latency."""
    torch.set_num_threads(1)
    names = [n for n in records if n.startswith('found-')]
    found = [records[name]['result'] for name in names]
    table = load_latency_table(records['table']['result']['table'])
    structures = [load_structure(row['structure']) for row in found]
    parts = Supernet(*beds.prepare(bed, 0))
    measured = compare_structures(parts, table, structures)[1:]
    lines = [
        '| search by | top-1: mean ± std | MACs | latency: predicted / ms '
        '| measured / ms |',
        '| --- | --- | --- | --- | --- |',
    ]
    for kind in KINDS:
        mine = [
            i for i, n in enumerate(names) if n.startswith(f'found-{kind}')
        ]
        trained = [names[i].replace('found', 'trained') for i in mine]
        scores = [records[name]['result']['score'] for name in trained]
        spread = statistics.stdev(scores) if len(scores) > 1 else float('nan')
        columns = [
            statistics.fmean(found[i]['macs'] for i in mine),
            statistics.fmean(found[i]['latency'] for i in mine),
            statistics.fmean(measured[i].measured for i in mine),
        ]
        cells = [f'{statistics.fmean(scores):.2f} ± {spread:.2f}']
        cells += [f'{value:.3f}' for value in columns]
        lines.append(f'| {kind} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def main() -> None:
    """Plan, do what is missing, measure, write the table."""
    parser = bed_runs.bed_parser(__doc__)
    parser.add_argument('--divisor', type=int, default=8)
    args = parser.parse_args()
    folder = args.out_dir or osp.join('work_dirs', f'speed-{args.bed}')
    study = Study(folder, plan(args))
    if args.run:
        study.perform(args.run, SpeedRuns(study))
        return
    records = study.execute([sys.executable, *sys.argv], args.jobs)
    text = measure(records, beds.BEDS[args.bed])
    write_text(osp.join(folder, 'speed.md'), f'{text}\n')
    print(text)


if __name__ == '__main__':
    main()
