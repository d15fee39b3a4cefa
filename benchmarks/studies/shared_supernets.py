"""Study: searches on supernets whose subnets share weights.

Tables 3, 13 and 16 of the DMS paper at the size of two CPU cores: DMS
(structure-only), evolution, the best of random structures, single random ones
and uniform ones on one trained supernet; all subnets get norms of their own
and no training. What is compared is the order and the cost, nothing about
ImageNet. One command trains the supernet and goes on where it was stopped:

    DMS_CIFAR10=cifar10.tar.xz python \
        benchmarks/studies/shared_supernets.py ofa --jobs 2

``--resource latency`` takes measured latencies (Table 13). The spaces
``autoformer``, ``autoformer-fine`` and ``autoformer-large``, with almost three
times the MACs, are those of Table 16; their targets are MACs relative to the
small one. Evolution and random search choose by 2,000 images split off the
training set.
"""

import argparse
import json
import os.path as osp
import statistics
import sys
import time
from typing import Any, Dict, List, Mapping, Tuple

import bed_runs
import beds
import shared_spaces
import torch
import torch.nn.functional as F
from beds import Split
from shared_spaces import SIZE, SPACES
from torch import nn

from dms_mmrazor import Search, latency
from dms_mmrazor.baselines.runs import Record, Run, Study, environment
from dms_mmrazor.baselines.structures import Request, random_structure
from dms_mmrazor.files import write_text
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.search.evolution import Evolution, EvolutionSettings
from dms_mmrazor.search.export import uniform_structure
from dms_mmrazor.search.recalibration import recalibrate_norms
from dms_mmrazor.search.sandwich import SANDWICH, Sandwich
from dms_mmrazor.subnet import Structure, pruned_copy, save_structure
from dms_mmrazor.supernet.choice_space import ChoiceSpace
from dms_mmrazor.supernet.plain import plain_copy

METHODS = ('uniform', 'random', 'random-best', 'ea', 'dms')
NORM_IMAGES, FITNESS_IMAGES = 1024, 2000


class Costs:
    """Images that a search runs forward and backward."""

    def __init__(self) -> None:
        self.forward = 0
        self.backward = 0


class Runs(bed_runs.RunsByKind):
    """Does the runs of the study."""

    def supernet(
        self, run: Run, needs: Mapping[str, Record]
    ) -> Dict[str, Any]:
        """Train the supernet by the sandwich rule."""
        settings = run.settings
        space = SPACES[settings['space']]
        model, mutator = prepare(settings['space'])
        bed = beds.Bed(
            lambda: model,
            settings['epochs'],
            space.lr,
            space.optimizer,
            space.weight_decay,
        )
        losses = train_supernet(model, mutator, bed, self.data['train'])
        plain = plain_copy(model)
        weights = self.study.file(f'{run.name}.pth')
        torch.save(plain.state_dict(), weights)
        whole = self._score(plain, Costs(), 'test')
        return {'weights': weights, 'largest': whole, 'losses': losses}

    def table(self, run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
        """Measure the latency of the supernet's layers."""
        model, mutator = prepare(run.settings['space'])
        searched = _Searched(model, mutator)
        settings = latency.Settings(
            threads=1,
            divisor=1,
            structures=run.settings['structures'],
            rounds=run.settings['rounds'],
        )
        table = latency.profile_latency(searched, settings)
        path = self.study.file(f'{run.name}.yaml')
        latency.save_latency_table(table, path)
        return {'latency_table': path, **table.held_out}

    def found(self, run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
        """Find a structure and test it with norms of its own."""
        settings, costs = run.settings, Costs()
        results = {r['kind']: r['result'] for r in needs.values()}
        weights = results['supernet']['weights']
        path = results.get('table', {}).get('latency_table')
        model, mutator = prepare(settings['space'], weights)
        if path:
            latency.use_latency_table(mutator, path)
        kind = settings['resource']
        reference = mutator.table.full[kind]
        base = SPACES[settings['space']].reference
        if base:
            reference = prepare(base)[1].table.full[kind]
        target = settings['target'] * reference
        started = time.process_time()
        if settings['method'] == 'dms':
            structure = self._searched(settings, weights, path, target, costs)
        else:
            structure = self._tried(model, mutator, settings, target, costs)
        seconds = time.process_time() - started
        save_structure(structure, self.study.file(f'{run.name}.yaml'))
        subnet = cut(model, structure)
        recalibrate(subnet, self.data['train'])
        return {
            'score': beds.accuracy(subnet, self.data['test']),
            'ratio': structure.resources[kind]['subnet'] / reference,
            'forward_images': costs.forward,
            'backward_images': costs.backward,
            'search_seconds': round(seconds, 1),
        }

    def _searched(
        self,
        settings: Dict[str, Any],
        weights: str,
        table: Any,
        target: float,
        costs: Costs,
    ) -> Structure:
        """Structure-only DMS."""
        space = SPACES[settings['space']]
        model = shared_spaces.build(space, 0)
        model.load_state_dict(torch.load(weights))
        steps = settings['steps']
        search = Search(
            model,
            torch.rand(1, 3, SIZE, SIZE),
            {settings['resource']: target},
            total_steps=steps,
            latency_table=table,
            mutator=shared_spaces.mutator_settings(space),
        )
        search.model.train().requires_grad_(False)
        seed = settings['seed']
        for batch in beds.batches(self.data['train'], steps, seed, 2):
            loss = F.cross_entropy(search.model(batch.images), batch.labels)
            loss.backward()
            search.step()
            costs.forward += len(batch.labels)
            costs.backward += len(batch.labels)
        return search.export(divisor=1).structure

    def _tried(
        self,
        model: nn.Module,
        mutator: DMSMutator,
        settings: Dict[str, Any],
        target: float,
        costs: Costs,
    ) -> Structure:
        """A uniform, a random or the best of many structures."""
        method, seed = settings['method'], settings['seed']
        targets = {settings['resource']: target}
        if method == 'uniform':
            return uniform_structure(mutator, targets, 1)
        if method == 'random':
            return random_structure(mutator, Request(targets, 1, seed))
        many = EvolutionSettings(settings['tried'], 1, seed=seed, mutations=0)
        if method == 'ea':
            population = settings['population']
            generations = max(1, settings['tried'] // population)
            many = EvolutionSettings(
                population,
                generations,
                max(1, population // 5),
                population // 2,
                seed=seed,
            )
        evolution = Evolution(ChoiceSpace(mutator, targets), many)

        def fitness(choices: Dict[str, int]) -> Dict[str, float]:
            subnet = cut(model, mutator.structure(choices))
            costs.forward += recalibrate(subnet, self.data['train'])
            return {'score': self._score(subnet, costs, 'val')}

        best = evolution.run(fitness)
        kind = settings['resource']
        rows = {kind: dict(subnet=best.resources[kind])}
        return mutator.structure(best.choices, resources=rows)

    def _score(self, model: nn.Module, costs: Costs, split: str) -> float:
        """Top-1 in percent; of the validation images a part."""
        if split == 'test':
            recalibrate(model, self.data['train'])
            return beds.accuracy(model, self.data['test'])
        whole = self.data['val']
        part = Split(
            whole.images[:FITNESS_IMAGES], whole.labels[:FITNESS_IMAGES]
        )
        costs.forward += len(part.labels)
        return beds.accuracy(model, part)


class _Searched:
    """A supernet and its mutator, as a profile wants them."""

    def __init__(self, architecture: nn.Module, mutator: DMSMutator) -> None:
        self.architecture = architecture
        self.mutator = mutator


def prepare(name: str, weights: str = '') -> Tuple[nn.Module, DMSMutator]:
    """A supernet, prepared, with trained weights if there are any."""
    space = SPACES[name]
    model = shared_spaces.build(space, 0)
    if weights:
        model.load_state_dict(torch.load(weights))
    mutator = DMSMutator(
        parse_cfg=dict(demo_input=(1, 3, SIZE, SIZE)),
        **shared_spaces.mutator_settings(space),
    )
    mutator.prepare_from_supernet(model)
    return model, mutator


def train_supernet(
    model: nn.Module, mutator: DMSMutator, bed: beds.Bed, split: Split
) -> List[float]:
    """Train as the bed says; the mean loss of the largest by tenths."""
    samples = SANDWICH if bed.optimizer == 'sgd' else ('max', 'random')
    sandwich = Sandwich(mutator, samples)
    optimizer = beds.make_optimizer(model, bed)
    steps = max(1, beds.iterations_of(bed, split))
    losses: List[List[float]] = [[] for _ in range(10)]
    model.train()
    data = beds.batches(split, steps, 0, bed.shift)
    for step, (images, labels) in enumerate(data):
        beds.set_lr(optimizer, bed, (step + 1) / steps)
        found = []
        for loss in sandwich.losses(
            step,
            lambda images=images: model(images),
            lambda logits, labels=labels: F.cross_entropy(logits, labels),
        ):
            loss.backward()
            found.append(float(loss.detach()))
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        losses[10 * step // steps].append(found[0])
    return [round(statistics.fmean(part), 4) for part in losses if part]


def cut(supernet: nn.Module, structure: Structure) -> nn.Module:
    """The plain subnet, with the weights of the supernet."""
    return pruned_copy(plain_copy(supernet, share=True), structure)


def recalibrate(model: nn.Module, split: Split) -> int:
    """Norms anew on the same images for all; how many these were."""
    images = split.images[:NORM_IMAGES]
    norms = recalibrate_norms(
        model,
        images.split(beds.BATCH),
        lambda batch: model(beds.as_input(batch)),
    )
    return len(images) if norms else 0


def plan(args: argparse.Namespace) -> List[Run]:
    """All runs, the supernet first."""
    common = dict(space=args.space, epochs=args.epochs)
    runs = [Run('supernet', 'supernet', common)]
    needs: Tuple[str, ...] = ('supernet',)
    if args.resource == 'latency':
        settings = dict(common, structures=args.structures, rounds=args.rounds)
        runs.append(Run('table', 'table', settings))
        needs += ('table',)
    for target in args.targets or SPACES[args.space].targets:
        for method in args.methods:
            for seed in [0] if method == 'uniform' else args.seeds:
                settings = dict(
                    common,
                    resource=args.resource,
                    target=target,
                    method=method,
                    seed=seed,
                )
                if method == 'dms':
                    settings['steps'] = args.steps
                if method in ('ea', 'random-best'):
                    settings['tried'] = args.tried
                if method == 'ea':
                    settings['population'] = args.population
                name = f'{method}-{args.resource}{target:g}-s{seed}'
                runs.append(Run(name, 'found', settings, needs))
    return runs


def summarize(records: Mapping[str, Record]) -> List[Dict[str, Any]]:
    """A row for each target and method."""
    groups: Dict[Tuple[float, str], List[Dict[str, Any]]] = {}
    for record in records.values():
        if record['kind'] == 'found':
            settings = record['settings']
            key = settings['target'], settings['method']
            groups.setdefault(key, []).append(record['result'])
    rows = []
    for (target, method), results in groups.items():
        scores = [result['score'] for result in results]
        several = len(scores) > 1
        means = {
            key: statistics.fmean([result[key] for result in results])
            for key in results[0]
            if key != 'score'
        }
        rows.append(
            {
                'target': target,
                'method': method,
                'mean': statistics.fmean(scores),
                'std': statistics.stdev(scores) if several else 0.0,
                'scores': scores,
                **means,
            }
        )
    return rows


def as_table(rows: List[Dict[str, Any]]) -> str:
    """Markdown."""
    heads = [
        *('target', 'method', 'top-1: mean ± std', 'each seed', 'resource'),
        *('images forward', 'images backward', 's of the search'),
    ]
    lines = [heads, ['---'] * len(heads)]
    for row in rows:
        lines.append(
            [
                f'{row["target"]:g}',
                row['method'],
                f'{row["mean"]:.2f} ± {row["std"]:.2f}',
                ', '.join(f'{score:.2f}' for score in row['scores']),
                f'{row["ratio"]:.4f}',
                f'{row["forward_images"]:,.0f}',
                f'{row["backward_images"]:,.0f}',
                f'{row["search_seconds"]:.0f}',
            ]
        )
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines)


def plot(rows: List[Dict[str, Any]], path: str) -> None:
    """Accuracy against the seconds of a search, a panel for each target."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    targets = sorted({row['target'] for row in rows})
    figure, axes = pyplot.subplots(
        1, len(targets), figsize=(4.5 * len(targets), 4), squeeze=False
    )
    for axis, target in zip(axes[0], targets):
        for row in (row for row in rows if row['target'] == target):
            axis.errorbar(
                max(row['search_seconds'], 0.1),
                row['mean'],
                row['std'],
                fmt='o',
                capsize=2,
                label=row['method'],
            )
        axis.set_xscale('log')
        axis.set_title(f'target {target:g}')
        axis.set_xlabel('processor seconds of the search')
    axes[0][0].set_ylabel('top-1')
    axes[0][0].legend(fontsize='small')
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('space', choices=list(SPACES))
    parser.add_argument('--methods', nargs='+', default=list(METHODS))
    parser.add_argument(
        '--resource', choices=['macs', 'latency'], default='macs'
    )
    parser.add_argument('--targets', type=float, nargs='+')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--epochs', type=float, default=30)
    parser.add_argument('--steps', type=int, default=400, help='of DMS')
    parser.add_argument(
        '--tried', type=int, default=400, help='by ea and random-best'
    )
    parser.add_argument('--population', type=int, default=20, help='of ea')
    parser.add_argument('--structures', type=int, default=40)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--out-dir')
    parser.add_argument('--run', help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Plan, do what is missing, write table, rows and plot."""
    args = parse_args()
    folder = args.out_dir or osp.join(
        'work_dirs', f'shared_supernets-{args.space}-{args.resource}'
    )
    study = Study(folder, plan(args))
    if args.run:
        study.perform(args.run, Runs(study))
        return
    beds.load_data()  # decoded once, not by every process
    records = study.execute([sys.executable, *sys.argv], args.jobs)
    rows = summarize(records)
    text = as_table(rows)
    data = {
        'environment': environment(),
        'rows': rows,
        'runs': list(records.values()),
    }
    base = osp.join(folder, 'shared_supernets')
    for suffix, content in (
        ('.md', text),
        ('.json', json.dumps(data, indent=1)),
    ):
        write_text(base + suffix, f'{content}\n')
    plot(rows, f'{base}.png')
    print(f'{text}\n\nWrote {base}.md, {base}.json and {base}.png.')


if __name__ == '__main__':
    main()
