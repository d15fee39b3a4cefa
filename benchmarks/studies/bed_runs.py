"""The runs of a study on a bed, and what the studies' scripts share."""

import argparse
import hashlib
import os
import os.path as osp
import sys
import time
from typing import (
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    Optional,
    Tuple,
)

import beds
import searches
import torch
import torch.nn.functional as F
from beds import Split
from torch import Tensor, nn

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.baselines import comparison as compare
from dms_mmrazor.baselines.runs import Record, Run, Study
from dms_mmrazor.baselines.structures import STRUCTURES, Request
from dms_mmrazor.subnet import (
    Structure,
    load_structure,
    prune,
    save_structure,
)
from dms_mmrazor.supernet.plain import plain_copy

RESULTS = osp.join(osp.dirname(osp.abspath(__file__)), 'results')
TAYLOR_BATCHES = 50
NORM_BATCHES = 50

FINETUNING, LOWER = 0.25, 4
"""Length of a search and a finetuning relative to a training, and the rate: a
fraction."""


class RunsByKind:
    """Does the runs of a study: a method for each kind.

    Args:
        study (Study): Where files go.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.data = beds.load_data()

    def __call__(
        self, run: Run, needs: Mapping[str, Record]
    ) -> Dict[str, Any]:
        """Do one run."""
        beds.use_one_thread()
        return getattr(self, run.kind)(run, needs)


class BedRuns(RunsByKind):
    """Does the runs of a comparison on a bed."""

    def supernet(
        self, run: Run, needs: Mapping[str, Record]
    ) -> Dict[str, Any]:
        """Train the whole network, once for all studies that ask for it."""
        settings = run.settings
        brief = settings['retrained'] and not settings.get('whole_training')
        bed = self._bed(settings, searching=brief)
        kept = _kept_network(settings, bed.epochs)
        if osp.exists(kept):
            stored = torch.load(kept)
        else:
            seed = settings['seed']
            model = beds.new_network(bed, seed)
            trained = beds.train(model, bed, self.data['train'], seed)
            result = {
                'images': trained.images,
                'cost': trained.seconds,
                **self._scores(model),
            }
            stored = {'weights': model.state_dict(), 'result': result}
            torch.save(stored, f'{kept}.{os.getpid()}')
            os.replace(f'{kept}.{os.getpid()}', kept)
        weights = self.study.file(f'{run.name}.pth')
        torch.save(stored['weights'], weights)
        return {'weights': weights, **stored['result']}

    def found(self, run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
        """Find a structure."""
        settings, started = run.settings, time.process_time()
        options = compare.options_of(run, needs)
        of_kind = {
            record['kind']: record['result']
            for record in needs.values()
            if record['settings']['seed'] != compare.TUNING_SEED
            or settings['seed'] == compare.TUNING_SEED
        }
        weights = of_kind.get('supernet', {}).get('weights')
        method = settings['method']
        bed = self._bed({**settings, **options}, searching=True)
        supernet, mutator = beds.prepare(
            bed,
            settings['seed'],
            weights,
            **searches.mutator_settings(method, options),
        )
        whole = self._macs(settings)
        targets = {'macs': settings['target'] * whole}
        if method == 'torch-pruning':
            return self._by_torch_pruning(run, supernet, targets['macs'])
        parts = supernet, mutator, bed
        if method in STRUCTURES:
            structure, images = self._constructed(
                parts, targets, settings, of_kind.get('found')
            )
        else:
            structure, images = searches.search(
                *parts, self.data['train'], targets, settings, options
            )
        cost = time.process_time() - started
        for result in _inherited(settings, of_kind):
            images, cost = images + result['images'], cost + result['cost']
        path = self.study.file(f'{run.name}.yaml')
        save_structure(structure, path)
        result = {
            'structure': path,
            'found': run.name,
            'options': options,
            'ratio': round(structure.resources['macs']['subnet'] / whole, 4),
            'images': images,
            'cost': round(cost, 1),
            'kept': describe(structure),
        }
        if not settings['retrained']:
            model = prune(plain_copy(supernet), structure)
            self._recalibrate(model, bed)
            result.update(self._scores(model))
            if settings.get('finetuned'):
                result['weights'] = self._save(run, model)
        return result

    def _by_torch_pruning(
        self, run: Run, supernet: nn.Module, macs: float
    ) -> Dict[str, Any]:
        """Cut by Torch-Pruning: group norms, widths alone, globally."""
        from torch_pruning_cut import cut

        started = time.process_time()
        model, history, found = cut(
            plain_copy(supernet), macs, (1, 3, beds.SIZE, beds.SIZE)
        )
        self._recalibrate(model, beds.BEDS[run.settings['bed']])
        return {
            'history': history,
            'found': run.name,
            'options': {},
            'ratio': round(found / self._macs(run.settings), 4),
            'images': 0,
            'cost': round(time.process_time() - started, 1),
            'weights': self._save(run, model),
            **self._scores(model),
        }

    def _macs(self, settings: Dict[str, Any]) -> float:
        """MACs of the bed's whole network, which targets are relative to."""
        _, mutator = beds.prepare(beds.BEDS[settings['bed']], 0, verify=False)
        return mutator.table.full['macs']

    def _save(self, run: Run, model: nn.Module) -> str:
        path = self.study.file(f'{run.name}.pth')
        torch.save(model.state_dict(), path)
        return path

    def _constructed(
        self,
        parts: Tuple[nn.Module, Any, beds.Bed],
        targets: Dict[str, float],
        settings: Dict[str, Any],
        found: Optional[Dict[str, Any]],
    ) -> Tuple[Structure, int]:
        """A structure without a search, and the images it took."""
        supernet, mutator, bed = parts
        method = settings['method']
        losses = []
        if method in compare.BY_LOSSES:
            losses = self._losses(supernet, bed, settings['seed'])
        request = Request(
            targets,
            settings['divisor'],
            settings['seed'],
            losses,
            load_structure(found['structure']) if found else None,
        )
        structure = STRUCTURES[method](mutator, request)
        return structure, len(losses) * beds.BATCH

    def trained(self, run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
        """Train a found structure: from scratch, or the cut weights."""
        (base,) = needs.values()
        options = base['result']['options']
        seed = run.settings['seed']
        bed = self._bed({**run.settings, **options})
        if 'history' in base['result']:
            from torch_pruning_cut import replay

            size = (1, 3, beds.SIZE, beds.SIZE)
            model = replay(
                beds.new_network(bed, seed), base['result']['history'], size
            )
        else:
            structure = load_structure(base['result']['structure'])
            model = beds.subnet(bed, structure, seed)
        if run.settings.get('finetuned'):
            model.load_state_dict(torch.load(base['result']['weights']))
            # What a search has seen, the others have in their finetuning.
            seen = base['result']['images'] / len(self.data['train'].labels)
            bed = bed._replace(
                epochs=FINETUNING * bed.epochs - seen, lr=bed.lr / LOWER
            )
        trained = beds.train(model, bed, self.data['train'], seed)
        return {
            'found': base['name'],
            'options': options,
            **trained._asdict(),
            **self._scores(model),
        }

    def _bed(
        self, settings: Dict[str, Any], searching: bool = False
    ) -> beds.Bed:
        """The bed, trained as long as a study and a method want it."""
        bed = beds.BEDS[settings['bed']]
        if 'scale' in settings:
            bed = beds.scaled(bed, settings['scale'])
        epochs = settings['search_epochs' if searching else 'epochs']
        if searching and 'search_images' in settings:
            epochs = settings['search_images'] * settings['epochs']
        return bed._replace(epochs=epochs)

    def _scores(self, model: nn.Module) -> Dict[str, float]:
        return {
            'val': beds.accuracy(model, self.data['val']),
            'score': beds.accuracy(model, self.data['test']),
        }

    def _losses(
        self, supernet: nn.Module, bed: beds.Bed, seed: int
    ) -> List[Callable[[], Tensor]]:
        """Losses of the supernet on some batches, in evaluation mode."""
        supernet.eval()
        data = beds.batches(
            self.data['train'], TAYLOR_BATCHES, seed, bed.shift
        )

        def loss(batch: Split) -> Callable[[], Tensor]:
            return lambda: F.cross_entropy(
                supernet(batch.images), batch.labels
            )

        return [loss(batch) for batch in data]

    @torch.no_grad()
    def _recalibrate(self, model: nn.Module, bed: beds.Bed) -> None:
        """Statistics of batch norms anew, with the weights as they are."""
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
        model.train()
        for batch in beds.batches(
            self.data['train'], NORM_BATCHES, 0, bed.shift
        ):
            model(batch.images)


def _kept_network(settings: Dict[str, Any], epochs: float) -> str:
    """Where a trained whole network is kept, by all that it depends on."""
    told = [settings['bed'], settings['seed'], settings.get('scale'), epochs]
    digest = hashlib.sha256(repr([*told, torch.__version__]).encode())
    for module in (beds, beds.networks):  # what beds are may change
        with open(module.__file__, 'rb') as file:
            digest.update(file.read())
    folder = beds.cache_folder()
    return osp.join(folder, f'whole-{digest.hexdigest()[:16]}.pth')


def _inherited(
    settings: Dict[str, Any], of_kind: Mapping[str, Dict[str, Any]]
) -> List[Dict[str, Any]]:
    """Results whose costs are part of a method's own.

    A trained supernet that all methods start from is nobody's.
    """
    kinds = {'found'} if settings['method'] == 'depth-uniform' else set()
    if settings['retrained']:
        kinds.add('supernet')
    return [result for kind, result in of_kind.items() if kind in kinds]


def describe(structure: Structure) -> str:
    """Kept blocks and widths in one line."""
    depths = [f'{len(s.kept)}/{len(s.blocks)}' for s in structure.stages]
    widths = [f'{len(u.kept)}/{u.size}' for u in structure.units]
    return f'blocks {" ".join(depths)}; widths {" ".join(widths)}'


def bed_parser(text: str, has_target: bool = True) -> argparse.ArgumentParser:
    """Options of a script that has methods of its own."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument('bed', choices=list(beds.BEDS))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    if has_target:
        parser.add_argument('--target', type=float, help="of MACs; the bed's")
    parser.add_argument('--epochs', type=float, help="instead of the bed's")
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--out-dir')
    parser.add_argument('--run', help=argparse.SUPPRESS)
    return parser


def parse(text: str, studies: Mapping[str, Any]) -> argparse.Namespace:
    """The command line of the studies."""
    known = '\n'.join(f'  {n:<20} {s.about}' for n, s in studies.items())
    parser = argparse.ArgumentParser(
        description=text.splitlines()[0],
        epilog=f'studies:\n{known}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('study', choices=list(studies))
    parser.add_argument('bed', choices=list(beds.BEDS))
    parser.add_argument('--methods', nargs='+', help="some of the study's")
    parser.add_argument('--targets', type=float, nargs='+')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--trainings', type=int, default=1)
    parser.add_argument('--epochs', type=float, help="instead of the bed's")
    parser.add_argument('--search-epochs', type=float)
    parser.add_argument('--divisor', type=int, default=1)
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--out-dir')
    parser.add_argument('--run', help=argparse.SUPPRESS)
    return parser.parse_args()


def planned(args: argparse.Namespace, study: Any) -> compare.Comparison:
    """What a study compares, as its command line changes it."""
    bed = beds.BEDS[args.bed]
    epochs = args.epochs or bed.epochs
    images = beds.load_data()['train'].labels.numel()
    search = args.search_epochs or (
        study.search_iterations * beds.BATCH / images
        or study.search_images * epochs
    )
    common = {
        'bed': args.bed,
        'retrained': study.mode == 'retrained',
        'epochs': epochs,
        'search_epochs': search,
        'divisor': args.divisor,
    }
    if study.mode == 'finetuned':
        common['finetuned'] = True
    if study.whole_training:
        common['whole_training'] = True
    methods = args.methods or [*study.methods, *study.variants]
    return compare.Comparison(
        list(dict.fromkeys(methods)),
        args.targets or study.targets or [bed.target],
        args.seeds,
        common,
        {**searches.GRIDS, **_grids(study.variants)},
        study.mode == 'retrained',
        study.mode == 'finetuned',
        study.pretrained,
        args.trainings,
    )


def _grids(variants: Mapping[str, Any]) -> Dict[str, List[Dict[str, Any]]]:
    """Settings to choose among, by method; mostly there is one."""
    return {
        name: options if isinstance(options, list) else [options]
        for name, options in variants.items()
    }


def main(text: str, studies: Mapping[str, Any]) -> None:
    """Plan, do what is missing, write the tables and the plot.

    Args:
        text (str): Docstring of the script.
        studies (Mapping[str, Study]): By name.
    """
    args = parse(text, studies)
    plan = planned(args, studies[args.study])
    folder = args.out_dir or osp.join('work_dirs', f'{args.study}-{args.bed}')
    study = Study(folder, compare.plan(plan))
    if args.run:
        study.perform(args.run, BedRuns(study))
        return
    records = study.execute([sys.executable, *sys.argv], args.jobs)
    print('\n'.join(compare.write(plan, records, folder, 'top-1')))
