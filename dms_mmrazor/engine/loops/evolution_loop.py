"""Evolution and random search as loops of a runner."""

import os.path as osp
from typing import Any, Dict, Optional, Union

from mmengine import dist
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from torch import nn
from torch.utils.data import DataLoader

from dms_mmrazor.engine.hooks import ResourceHook
from dms_mmrazor.engine.loops.candidates import (
    CandidateFile,
    CandidateWatch,
    fingerprint,
)
from dms_mmrazor.engine.runner_access import (
    dataset_meta,
    get_algorithm,
    search_info,
)
from dms_mmrazor.engine.search_log import (
    describe_resources,
    describe_subnet,
    describe_targets,
)
from dms_mmrazor.engine.subnet_fitness import SubnetJudge
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.registry import LOOPS
from dms_mmrazor.search.evolution import (
    Candidate,
    Evolution,
    EvolutionSettings,
)
from dms_mmrazor.search.export import (
    ExportedSubnet,
    export_subnet,
    save_subnet,
)
from dms_mmrazor.subnet import Structure
from dms_mmrazor.supernet.choice_space import ChoiceSpace
from dms_mmrazor.supernet.resources import format_resource

CANDIDATES = 'candidates.jsonl'


@LOOPS.register_module()
class DMSEvolutionLoop(BaseLoop):
    """Searches the same space as a config's DMS by evolution.

    One line turns a search that starts from a trained supernet into one by
    evolution; the target stays that of the ResourceHook::

        train_cfg = dict(_delete_=True, type='mmrazor.DMSEvolutionLoop')

    Every structure is cut out of the supernet as a plain subnet, its norms
    are computed anew, and it is judged by a fitness; nothing is trained.
    Candidates and scores are in ``<work_dir>/candidates.jsonl``. The same
    command goes on where it was interrupted, and ends with the same subnet,
    in ``<work_dir>/subnet`` as that of any search, with its result card.

    Args:
        runner (Runner): A reference of runner.
        dataloader (DataLoader | dict): Of the training data, of which the
            fitness takes a part of its own.
        population (int): Structures of a generation. Defaults to 50.
        generations (int): Defaults to 20.
        parents (int): Best structures so far, of which the next ones are
            bred. Defaults to 10.
        mutations (int, optional): Of a generation, the others are
            crossovers. Defaults to None, half of them.
        mutation_prob (float): Of each number of a mutated structure to be
            drawn anew. Defaults to 0.1.
        seed (int): Of what is tried. Defaults to 0.
        recalibrate (int): Images with which the norms of a subnet are
            computed anew; 0: they stay the supernet's. Defaults to 1000.
        fitness (str | dict, optional): What judges a subnet: the name of a
            score of a short training ('landscape', 'final_loss', 'tse' or
            'speed', see :class:`ShortTraining`), or a class of
            TASK_UTILS that keeps the contract of :class:`SubnetAccuracy`.
            Defaults to None, dict(type='SubnetAccuracy').

    Raises:
        DMSError: If a setting cannot be meant.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: Union[DataLoader, Dict[str, Any]],
        population: int = 50,
        generations: int = 20,
        parents: int = 10,
        mutations: Optional[int] = None,
        mutation_prob: float = 0.1,
        seed: int = 0,
        recalibrate: int = 1000,
        fitness: Union[str, Dict[str, Any], None] = None,
        **unknown: Any,
    ) -> None:
        super().__init__(runner, dataloader)
        self._refuse(unknown)
        if mutations is None:
            mutations = population // 2
        self.settings = EvolutionSettings(
            population, generations, parents, mutations, mutation_prob, seed
        ).check(f'train_cfg ({type(self).__name__})')
        self.recalibrate = recalibrate
        if isinstance(fitness, str):
            # A score of a short training; its class checks the name.
            fitness = dict(type='mmrazor.ShortTraining', score=fitness)
        self.fitness = {'type': 'mmrazor.SubnetAccuracy', **(fitness or {})}
        self._tried = 0
        self._best: Optional[Candidate] = None

    @property
    def iter(self) -> int:
        """Structures tried so far."""
        return self._tried

    @property
    def max_iters(self) -> int:
        """Structures to try."""
        return self.settings.population * self.settings.generations

    @property
    def epoch(self) -> int:
        """Generations so far."""
        return self._tried // self.settings.population

    @property
    def max_epochs(self) -> int:
        """Generations."""
        return self.settings.generations

    def run(self) -> nn.Module:
        """Try all generations, and export the best subnet.

        Raises:
            DMSError: If there is no target, or candidates of another search
                are in the way.
        """
        runner = self.runner
        algorithm = get_algorithm(runner)
        hook = self._take_hook()
        runner.call_hook('before_train')
        targets = hook.resolve(algorithm)
        log = runner.logger.info
        space = ChoiceSpace(algorithm.mutator, targets, hook.divisor)
        log(self._describe_space(space, algorithm, targets, hook.divisor))
        judge = SubnetJudge(runner, algorithm, self.recalibrate, self.fitness)
        evolution = Evolution(space, self.settings)
        file = CandidateFile(
            osp.join(runner.work_dir, CANDIDATES),
            self._settings_of(algorithm, targets, hook.divisor),
        )
        # One rank reads what all of them go on from.
        shared = [file.open() if dist.is_main_process() else []]
        dist.broadcast_object_list(shared)
        (done,) = shared
        self._tried = len(done)
        if done:
            log(f'{file.path}: going on after {len(done)} candidates.')
        watch: Optional[CandidateWatch] = None
        if dist.is_main_process():
            loop, folder = self._title, self._folder(hook)
            watch = CandidateWatch(
                runner, algorithm, loop, targets, folder, self._tried
            )

        def note(candidate: Candidate) -> None:
            self._tried = len(evolution.candidates)
            if watch is not None:
                file.append(candidate)
                watch.tried(self._tried, candidate, evolution.best)
            log(self._describe(candidate, evolution.best))

        best = evolution.run(judge, done, note)
        self._tried = len(evolution.candidates)
        if watch is not None:
            structure = self._export(algorithm, best, hook, judge)
            times = hook.measured(algorithm, structure)
            card = watch.end(structure, self._tried, best.score, times)
            log(f'Wrote {card}')
        runner.call_hook('after_train')
        return runner.model

    @classmethod
    def _refuse(cls, unknown: Dict[str, Any]) -> None:
        """Raise DMSError for settings that the loop does not have."""
        if unknown:
            raise DMSError(
                f'`train_cfg` of {cls.__name__} has an unknown setting '
                f'{next(iter(unknown))!r}: if the config inherits it, write '
                f"`train_cfg = dict(_delete_=True, type='mmrazor."
                f"{cls.__name__}')`."
            )

    def _take_hook(self) -> ResourceHook:
        """The hook with the target, which leads no gradient here.

        Raises:
            DMSError: If there is none.
        """
        hooks = self.runner.hooks
        found = [hook for hook in hooks if isinstance(hook, ResourceHook)]
        if not found:
            raise DMSError(
                f'{type(self).__name__} needs a target: write `custom_hooks ='
                " [dict(type='mmrazor.ResourceHook', target=0.5)]`."
            )
        hooks.remove(found[0])
        return found[0]

    def _settings_of(
        self,
        algorithm: DMSAlgorithm,
        targets: Dict[str, float],
        divisor: int,
    ) -> Dict[str, Any]:
        """All that candidates and scores depend on."""
        return {
            **self.settings._asdict(),
            'targets': targets,
            'divisor': divisor,
            'recalibrate': self.recalibrate,
            'fitness': dict(self.fitness),
            'weights': fingerprint(algorithm),
        }

    @property
    def _title(self) -> str:
        """Name and settings of the loop, for log and card."""
        return f'{type(self).__name__}: {self.settings}'

    def _describe_space(
        self,
        space: ChoiceSpace,
        algorithm: DMSAlgorithm,
        targets: Dict[str, float],
        divisor: int,
    ) -> str:
        """What is searched, within which targets, and how."""
        mutator = algorithm.mutator
        return (
            f'Search space:\n{mutator.report()}\n'
            f'{describe_resources(mutator, divisor)}\n'
            f'{describe_targets(mutator, targets)}\n'
            f'{self._title} in 10^{space.log10_size:.1f} structures'
        )

    def _describe(self, candidate: Candidate, best: Candidate) -> str:
        shown = ', '.join(
            f'{kind} {format_resource(value, kind)}'
            for kind, value in candidate.resources.items()
        )
        return (
            f'Generation {candidate.generation + 1}/{self.max_epochs}, '
            f'candidate {self._tried}/{self.max_iters} '
            f'({candidate.origin}): {shown}; score {candidate.score:.4g}, '
            f'best {best.score:.4g}'
        )

    def _export(
        self,
        algorithm: DMSAlgorithm,
        best: Candidate,
        hook: ResourceHook,
        judge: SubnetJudge,
    ) -> Structure:
        """Write the best subnet as the ResourceHook would."""
        runner = self.runner
        subnet = export_choices(algorithm, best, hook)
        search = search_info(runner, hook.wanted)
        search.update(loop=type(self).__name__, score=best.score)
        device = next(runner.model.parameters()).device
        judge.recalibrate(subnet.model.to(device))
        subnet.model.cpu()
        structure = subnet.structure
        structure = structure._replace(search={**structure.search, **search})
        paths = save_subnet(
            subnet._replace(structure=structure),
            self._folder(hook),
            dataset_meta(runner),
        )
        runner.logger.info(describe_subnet(structure))
        runner.logger.info(
            f'Score {best.score:.4g}; wrote {paths["structure"]} and '
            f'{paths["weights"]}.'
        )
        return structure

    def _folder(self, hook: ResourceHook) -> str:
        return hook.out_dir or osp.join(self.runner.work_dir, 'subnet')


@LOOPS.register_module()
class DMSRandomSearchLoop(DMSEvolutionLoop):
    """The best of random structures, as :class:`DMSEvolutionLoop`.

    Structures are uniform over those that meet the target, see
    :meth:`ChoiceSpace.sample`.

    Args:
        runner (Runner): A reference of runner.
        dataloader (DataLoader | dict): Of the training data.
        number (int): Structures to try. Defaults to 1000, as many as the
            evolution tries.
        seed (int): Of what is tried. Defaults to 0.
        recalibrate (int): Images with which the norms of a subnet are
            computed anew. Defaults to 1000.
        fitness (str | dict, optional): What judges a subnet. Defaults to None,
            dict(type='SubnetAccuracy').
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: Union[DataLoader, Dict[str, Any]],
        number: int = 1000,
        seed: int = 0,
        recalibrate: int = 1000,
        fitness: Union[str, Dict[str, Any], None] = None,
        **unknown: Any,
    ) -> None:
        self._refuse(unknown)
        super().__init__(
            runner,
            dataloader,
            population=number,
            generations=1,
            seed=seed,
            recalibrate=recalibrate,
            fitness=fitness,
        )


def export_choices(
    algorithm: DMSAlgorithm, best: Candidate, hook: ResourceHook
) -> ExportedSubnet:
    """Export exactly the structure that was judged.

    Args:
        algorithm (DMSAlgorithm): Its mutator gets the choices.
        best (Candidate): What to export.
        hook (ResourceHook): Its targets are noted in the structure.
    """
    algorithm.mutator.set_choices(best.choices)
    subnet = export_subnet(algorithm, {}, 1)
    rows = {k: dict(row) for k, row in subnet.structure.resources.items()}
    for kind, target in hook.targets.items():
        digits = 4 if kind == 'latency' else None
        rows[kind]['target'] = round(float(target), digits)
    search = {**subnet.structure.search, 'divisor': hook.divisor}
    structure = subnet.structure._replace(resources=rows, search=search)
    return subnet._replace(structure=structure)
