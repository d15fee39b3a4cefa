"""The runs of a study on a bed, and what the studies' scripts share."""

import argparse
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
    Sequence,
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
from dms_mmrazor.baselines.masks import MASKS
from dms_mmrazor.baselines.runs import Record, Run, Study
from dms_mmrazor.baselines.structures import STRUCTURES, Request
from dms_mmrazor.models.subnet import (
    Structure,
    load_structure,
    prune,
    save_structure,
)
from dms_mmrazor.search.plain import plain_copy

RESULTS = osp.join(osp.dirname(osp.abspath(__file__)), 'results')
TAYLOR_BATCHES = 50
NORM_BATCHES = 50


class BedRuns:
    """Does the runs of a comparison on a bed.

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
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # they make old weights slow
        return getattr(self, run.kind)(run, needs)

    def supernet(
        self, run: Run, needs: Mapping[str, Record]
    ) -> Dict[str, Any]:
        """Train the whole network."""
        settings = run.settings
        bed = self._bed(settings, searching=settings['retrained'])
        model = beds.new_network(bed, settings['seed'])
        trained = beds.train(model, bed, self.data['train'], settings['seed'])
        weights = self.study.file(f'{run.name}.pth')
        torch.save(model.state_dict(), weights)
        return {
            'weights': weights,
            'images': trained.images,
            'cost': trained.seconds,
            **self._scores(model),
        }

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
        bed = self._bed(settings, searching=True)
        method = settings['method']
        supernet, mutator = beds.prepare(
            bed,
            settings['seed'],
            weights,
            method=method if method in MASKS else 'dms',
        )
        targets = {'macs': settings['target'] * mutator.table.full['macs']}
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
            'ratio': structure.resources['macs']['ratio'],
            'images': images,
            'cost': round(cost, 1),
            'kept': describe(structure),
        }
        if not settings['retrained']:
            model = prune(plain_copy(supernet), structure)
            self._recalibrate(model, bed)
            result.update(self._scores(model))
        return result

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
        if method in ('taylor', 'greedy'):
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
        """Train a found structure from scratch."""
        (base,) = needs.values()
        structure = load_structure(base['result']['structure'])
        bed, seed = self._bed(run.settings), run.settings['seed']
        model = beds.subnet(bed, structure, seed)
        trained = beds.train(model, bed, self.data['train'], seed)
        return {
            'found': base['name'],
            'options': base['result']['options'],
            **trained._asdict(),
            **self._scores(model),
        }

    def _bed(
        self, settings: Dict[str, Any], searching: bool = False
    ) -> beds.Bed:
        bed = beds.BEDS[settings['bed']]
        key = 'search_epochs' if searching else 'epochs'
        return bed._replace(epochs=settings[key])

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


def parse(text: str, methods: Sequence[str]) -> argparse.ArgumentParser:
    """The options of a study's script."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument('bed', choices=list(beds.BEDS))
    parser.add_argument('--methods', nargs='+', default=list(methods))
    parser.add_argument('--targets', type=float, nargs='+')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--epochs', type=float, help="instead of the bed's")
    parser.add_argument('--search-epochs', type=float, default=4)
    parser.add_argument('--divisor', type=int, default=1)
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--out-dir')
    parser.add_argument('--run', help=argparse.SUPPRESS)
    return parser


def main(
    text: str, name: str, methods: Sequence[str], retrained: bool
) -> None:
    """Plan, do what is missing, write the tables and the plot.

    Args:
        text (str): Docstring of the script.
        name (str): Of the study.
        methods (Sequence[str]): Compared if nothing else is asked for.
        retrained (bool): Whether structures are trained from scratch.
    """
    args = parse(text, methods).parse_args()
    bed = beds.BEDS[args.bed]
    common = {
        'bed': args.bed,
        'retrained': retrained,
        'epochs': args.epochs or bed.epochs,
        'search_epochs': args.search_epochs,
        'divisor': args.divisor,
    }
    plan = compare.Comparison(
        args.methods,
        args.targets or [bed.target],
        args.seeds,
        common,
        searches.GRIDS,
        retrained,
    )
    folder = args.out_dir or osp.join('work_dirs', f'{name}-{args.bed}')
    study = Study(folder, compare.plan(plan))
    if args.run:
        study.perform(args.run, BedRuns(study))
        return
    beds.load_data()  # decoded once, not by every process
    records = study.execute([sys.executable, *sys.argv], args.jobs)
    print('\n'.join(compare.write(plan, records, folder, 'top-1')))
