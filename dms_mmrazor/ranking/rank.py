"""Rank candidates: each trained briefly, with several seeds."""

import hashlib
import os
import tempfile
from typing import (
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

from torch import distributed, nn

from dms_mmrazor.baselines.runs import Record, Run, Study
from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import count_macs
from dms_mmrazor.ranking.report import Ranking, Resources, summarize, write
from dms_mmrazor.ranking.scores import (
    SINGLE,
    MoteWeights,
    Trajectory,
    check_score,
)
from dms_mmrazor.supernet.preparation import demo_of

Candidate = TypeVar('Candidate')

Recipe = Callable[[Candidate, int], Trajectory]
"""(candidate, seed) → its short training. What its attribute ``settings``
has, plain data, must be equal for a ranking to go on."""

DEFAULT_SCORE = 'accuracy'


def rank_subnets(
    candidates: Mapping[str, Candidate],
    recipe: Recipe,
    score: str = DEFAULT_SCORE,
    seeds: Sequence[int] = (0, 1),
    folder: Optional[str] = None,
    resources: Optional[Mapping[str, Resources]] = None,
    example_inputs: Any = None,
    budget: Sequence[str] = ('macs',),
    weights: Optional[MoteWeights] = None,
    say: Callable[[str], None] = print,
) -> Ranking:
    """Train each candidate briefly and rank all by what that says.

    Where ``torch.distributed`` is initialized, the trainings are dealt out
    over the ranks and all get the same ranking::

        recipe = PlainRecipe(loader, loss, optimizer, 2, evaluate)
        names = ['seed0.yaml', 'seed1.yaml']
        nets = {n: lambda n=n: apply_structure(build(), n) for n in names}
        print(rank_subnets(nets, recipe, folder='ranking'))

    Args:
        candidates (Mapping): Name → what the recipe takes: a function that
            makes the model with new weights (:class:`PlainRecipe`), or the
            path of a structure (:class:`ConfigRecipe`).
        recipe (Callable): Trains one of them.
        score (str): What they are ranked by, see
            :data:`dms_mmrazor.ranking.scores.WORTH`. Defaults to
            'accuracy'.
        seeds (Sequence[int]): Of the trainings. Defaults to (0, 1).
        folder (str, optional): For results as they come, so that a killed
            ranking goes on, and for table, JSON and plot; shared by all
            ranks. Defaults to None, nothing is kept.
        resources (Mapping, optional): Name → kind → value. Defaults to
            None: parameters of models are counted, and MACs if there are
            example inputs.
        example_inputs (Tensor | Sequence | Mapping, optional): A batch that
            MACs are counted on. Defaults to None.
        budget (Sequence[str]): Kinds of resource that should be equal.
            Defaults to ('macs',).
        weights (MoteWeights, optional): Of the score 'mote'. Defaults to
            None.
        say (Callable): Takes lines of progress. Defaults to print.

    Raises:
        DMSError: If there is nothing to rank, the score cannot be had, or
            the folder has results of other settings.
    """
    check_candidates(candidates)
    check_obtainable(score, recipe, len(candidates))
    if resources is None:
        resources = {
            name: count_resources(candidate(), example_inputs)
            for name, candidate in candidates.items()
            if callable(candidate)
        }
    settings = getattr(recipe, 'settings', {})
    contents = {
        name: digest(candidate)
        for name, candidate in candidates.items()
        if isinstance(candidate, (str, os.PathLike))
    }
    runs = plan(candidates, seeds, settings, contents)

    def perform(run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
        settings = run.settings
        found = recipe(candidates[settings['candidate']], settings['seed'])
        return found._asdict()

    with tempfile.TemporaryDirectory() as temporary:
        study = Study(folder or temporary, runs)
        rank, world = _place()
        done = study.perform_all(
            perform, (rank, world), say if rank == 0 else _silent
        )
        records = _gathered(done)
    ranking = summarize(
        score, by_seed(runs, records), resources, budget, weights
    )
    if folder is not None and rank == 0:
        write(ranking, folder, list(records.values()))
    return ranking


def plan(
    names: Sequence[str],
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    contents: Mapping[str, str],
) -> List[Run]:
    """A run for each candidate and seed, one seed of all first.

    Args:
        names (Sequence[str]): Of the candidates.
        seeds (Sequence[int]): Of the trainings.
        settings (Mapping[str, Any]): What else results depend on.
        contents (Mapping[str, str]): Name → :func:`digest` of its file, for
            those that are files.

    Raises:
        DMSError: If there is no candidate or no seed.
    """
    if not isinstance(seeds, Sequence):
        raise DMSError(
            f'`seeds` must be a list such as [0, 1], got {seeds!r}.'
        )
    if not names or not seeds:
        raise DMSError('a ranking needs at least one candidate and one seed.')
    if len(set(seeds)) < len(seeds):
        raise DMSError(f'`seeds` names one twice: {list(seeds)}.')
    files = [file_name(name) for name in names]
    twice = [name for name in names if files.count(file_name(name)) > 1]
    if twice:
        raise DMSError(
            f'candidates {twice[0]!r} and {twice[1]!r} would write the same '
            'files: give them other names.'
        )
    return [
        Run(
            f'{file_name(name)}-s{seed}',
            'trained',
            {
                'candidate': name,
                'seed': seed,
                **settings,
                **({'content': contents[name]} if name in contents else {}),
            },
        )
        for seed in seeds
        for name in names
    ]


def check_candidates(candidates: Any) -> None:
    """Refuse what is no mapping of names to functions or paths.

    Raises:
        DMSError: It names what was given.
    """
    if not isinstance(candidates, Mapping):
        raise DMSError(
            '`candidates` must be a dict, name → function that makes the '
            f'model (or path), got a {type(candidates).__name__}.'
        )
    built = [n for n, c in candidates.items() if isinstance(c, nn.Module)]
    if built:
        raise DMSError(
            f'candidate {built[0]!r} is a model: give a function that makes '
            'it with new weights, as each seed needs its own.'
        )


def check_obtainable(score: str, recipe: Any, number: int) -> None:
    """Refuse a score that the trainings will not have, before they begin.

    Args:
        score (str): What is ranked by.
        recipe (Callable): Its attributes ``evaluate`` and
            ``landscape_batches`` tell, if it has them.
        number (int): Of candidates.

    Raises:
        DMSError: It says what is missing.
    """
    nothing = Trajectory((), ())
    if check_score(score) == 'accuracy':
        if not getattr(recipe, 'evaluate', True):
            SINGLE['accuracy'](nothing)  # says what is missing
    elif score in ('landscape', 'mote'):
        if not getattr(recipe, 'landscape_batches', True):
            SINGLE['landscape'](nothing)
        if score == 'mote' and number < 2:
            raise DMSError('`score=mote` compares two or more candidates.')


def digest(path: Any) -> str:
    """Of a structure's file, so that a changed one is not taken for it.

    Raises:
        DMSError: If there is no such file.
    """
    try:
        with open(path, 'rb') as file:
            return hashlib.sha256(file.read()).hexdigest()[:16]
    except OSError as error:
        raise DMSError(f'candidate {path}: {error.strerror}.') from None


def file_name(name: str) -> str:
    """A candidate's name as a part of a file's name."""
    return ''.join(c if c.isalnum() or c in '-_.' else '_' for c in name)


def by_seed(
    runs: Sequence[Run], records: Mapping[str, Record]
) -> Dict[int, Dict[str, Trajectory]]:
    """Seed → candidate → trajectory, of all finished runs."""
    found: Dict[int, Dict[str, Trajectory]] = {}
    for run in runs:
        if run.name in records:
            result = records[run.name]['result']
            known = {key: result[key] for key in Trajectory._fields}
            mine = found.setdefault(run.settings['seed'], {})
            mine[run.settings['candidate']] = Trajectory(**known)
    return found


def count_resources(
    model: nn.Module, example_inputs: Any = None
) -> Dict[str, float]:
    """Parameters of a plain model, and MACs per image of a batch.

    Args:
        model (nn.Module): A candidate.
        example_inputs (Tensor | Sequence | Mapping, optional): What it is
            called with, as for :class:`Search`. Defaults to None, no MACs.
    """
    counted: Dict[str, float] = {}
    if example_inputs is not None:
        demo = demo_of(model, example_inputs)
        counted['macs'] = count_macs(model, demo)
    counted['params'] = sum(p.numel() for p in model.parameters())
    return counted


def _place() -> Tuple[int, int]:
    """This process among the others."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _gathered(done: Dict[str, Record]) -> Dict[str, Record]:
    """Results of all ranks."""
    _, world = _place()
    if world == 1:
        return done
    parts: List[Any] = [None] * world
    distributed.all_gather_object(parts, done)
    return {name: record for part in parts for name, record in part.items()}


def _silent(line: str) -> None:
    """Say nothing."""
