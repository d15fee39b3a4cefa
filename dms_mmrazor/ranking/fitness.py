"""A short training as the fitness of an evolution."""

from copy import deepcopy
from typing import Any, Callable, Dict, List, Mapping, Optional

import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from dms_mmrazor.baselines.config_runs import plain_config
from dms_mmrazor.cli import command_line
from dms_mmrazor.cli.training_length import (
    dataset_length,
    shortened_schedulers,
    training_length,
)
from dms_mmrazor.engine.runner_access import get_algorithm
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.ranking.reduced_data import TYPE
from dms_mmrazor.ranking.scores import (
    LAST,
    SINGLE,
    Trajectory,
    check_score,
)
from dms_mmrazor.ranking.trainings import (
    LANDSCAPE_BATCHES,
    PlainRecipe,
    loss_of_data,
)
from dms_mmrazor.registry import MODELS, TASK_UTILS
from dms_mmrazor.subnet import Structure
from dms_mmrazor.subnet.structure import structure_to_dict


class TrainingFitness:
    """Judges choices of a search space by a short training from scratch.

    For an evolution without a runner::

        fitness = TrainingFitness(
            mutator, lambda s: lambda: prune(build(), s), recipe, 'landscape'
        )
        fitness({'stage1.conv1': 24, …})  # {'score': …, 'seconds': …}

    Args:
        mutator (DMSMutator): Prepared; turns choices into structures.
        candidate (Callable): Structure → what the recipe takes.
        recipe (Callable): Trains it: (candidate, seed) → trajectory.
        score (str): 'accuracy', 'final_loss', 'tse', 'landscape' or
            'speed'. Defaults to 'landscape'.
        seed (int): Of all trainings. Defaults to 0.

    Raises:
        DMSError: If there is no such score, or one candidate alone has
            none.
    """

    def __init__(
        self,
        mutator: DMSMutator,
        candidate: Callable[[Structure], Any],
        recipe: Callable[[Any, int], Trajectory],
        score: str = 'landscape',
        seed: int = 0,
    ) -> None:
        self.mutator = mutator
        self.candidate = candidate
        self.recipe = recipe
        self.score = check_single(score)
        self.seed = seed

    def __call__(self, choices: Mapping[str, int]) -> Dict[str, float]:
        """Train a structure briefly.

        Args:
            choices (Mapping[str, int]): Kept channels (blocks) by unit
                (stage).

        Returns:
            dict[str, float]: 'score', larger is better and −inf if the
            training diverged; 'seconds', spent on it.
        """
        structure = self.mutator.structure(dict(choices))
        found = self.recipe(self.candidate(structure), self.seed)
        return judged(found, self.score)


@TASK_UTILS.register_module()
class ShortTraining:
    """Judges subnets of an evolution's loop by training them briefly.

    ``train_cfg.fitness=dict(type='mmrazor.ShortTraining',
    score='landscape')``: each structure is trained from scratch, on a part
    of the training data, instead of being evaluated with the supernet's
    weights.

    Args:
        runner (Runner): Of the search, in one process.
        score (str): 'final_loss', 'tse', 'landscape' or 'speed': those
            without an evaluation. Defaults to 'landscape'.
        epochs (int): Of the part. Defaults to 1.
        subset (float): Portion of the training samples. Defaults to 0.1.
        retrain (str, optional): Config whose data, optimizer and schedule
            are used. Defaults to None: data and optimizer of the search,
            and a cosine to 0.
        landscape_batches (int): Batches of the losses between initial and
            trained weights. Defaults to 4.
        seed (int): Of all trainings. Defaults to 0.

    Raises:
        DMSError: If a setting cannot be meant.
    """

    def __init__(
        self,
        runner: Runner,
        score: str = 'landscape',
        epochs: int = 1,
        subset: float = 0.1,
        retrain: Optional[str] = None,
        landscape_batches: int = LANDSCAPE_BATCHES,
        seed: int = 0,
    ) -> None:
        self.score = check_single(score)
        if score == 'accuracy':
            raise DMSError(
                '`fitness.score=accuracy` would need an evaluation of each '
                'training: take `final_loss`, which is free, or the fitness '
                "'mmrazor.SubnetAccuracy'."
            )
        if runner.world_size > 1:
            raise DMSError(
                "`fitness.type='mmrazor.ShortTraining'` trains in one "
                'process; start the search without a launcher.'
            )
        self.runner = runner
        self.seed = seed
        cfg = command_line.read_config(retrain) if retrain else runner.cfg
        self.wrapper = plain_config(cfg, {}).optim_wrapper
        loader = deepcopy(cfg.train_dataloader)
        whole = dataset_length(runner.cfg, loader['dataset'])
        loader['dataset'] = dict(
            type=TYPE, dataset=loader['dataset'], fraction=subset
        )
        built = Runner.build_dataloader(loader, seed=seed)
        self.schedulers: List[Dict[str, Any]] = []
        if retrain:
            self.schedulers = shortened_schedulers(
                cfg, training_length(cfg, whole), epochs * len(built)
            )
        self.recipe = PlainRecipe(
            built,
            task_loss,
            self._optimizer,
            epochs,
            scheduler=self._scheduler,
            landscape_batches=landscape_batches,
            device=next(runner.model.parameters()).device,
        )

    def __call__(
        self, choices: Mapping[str, int], subnet: nn.Module
    ) -> Dict[str, float]:
        """Train a structure briefly; the subnet's own weights do not count.

        Args:
            choices (Mapping[str, int]): Kept channels (blocks) by unit
                (stage).
            subnet (nn.Module): Of the choices; not used.
        """
        mutator = get_algorithm(self.runner).mutator
        structure = mutator.structure(dict(choices))
        model = dict(
            type='mmrazor.DMSSubModel',
            architecture=self.runner.cfg.model.architecture.to_dict(),
            structure=structure_to_dict(structure),
        )
        processor = self.runner.cfg.get('data_preprocessor')
        if processor is not None:
            model['data_preprocessor'] = dict(processor)

        def build() -> nn.Module:
            made = MODELS.build(deepcopy(model))
            made.init_weights()
            return made

        with torch.random.fork_rng():
            found = self.recipe(build, self.seed)
        batch = self.recipe.loader.batch_size or 1
        return {
            **judged(found, self.score),
            'backward_images': len(found.losses)
            and len(self.recipe.loader) * batch * self.recipe.epochs,
        }

    def _optimizer(self, model: nn.Module) -> Optimizer:
        wrapper = build_optim_wrapper(model, deepcopy(self.wrapper))
        return wrapper.optimizer

    def _scheduler(self, optimizer: Optimizer, iterations: int) -> Any:
        if self.schedulers:
            return _Several(
                [
                    PARAM_SCHEDULERS.build({'optimizer': optimizer, **cfg})
                    for cfg in self.schedulers
                ]
            )
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        return cosine(optimizer, iterations)


class _Several:
    """Schedulers that step together.

    Args:
        schedulers (list): Of one optimizer.
    """

    def __init__(self, schedulers: List[Any]) -> None:
        self.schedulers = schedulers

    def step(self) -> None:
        """Let all step."""
        for scheduler in self.schedulers:
            scheduler.step()


def task_loss(model: nn.Module, batch: Any) -> Tensor:
    """Loss of a model of mmengine on a batch of a loader."""
    return loss_of_data(model, model.data_preprocessor(batch, True))


def judged(found: Trajectory, score: str) -> Dict[str, float]:
    """What a fitness says of a short training."""
    value = LAST if found.diverged else SINGLE[score](found)
    return {'score': value, 'seconds': sum(found.costs.values())}


def check_single(score: str) -> str:
    """A score that one candidate has alone.

    Raises:
        DMSError: If it is none.
    """
    if check_score(score) not in SINGLE:
        raise DMSError(
            f'`fitness.score={score}` compares several candidates with each '
            f'other; one alone has {", ".join(SINGLE)}.'
        )
    return score
