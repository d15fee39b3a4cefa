"""A short training as the fitness of an evolution."""

from typing import Any, Callable, Dict, Mapping

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.models.subnet import Structure
from dms_mmrazor.ranking.rank import Recipe
from dms_mmrazor.ranking.scores import LAST, SINGLE, check_score


class TrainingFitness:
    """Judges choices of a search space by a short training from scratch.

    Instead of the accuracy with weights of the supernet, which an evolution
    has for nothing but the supernet's training::

        fitness = TrainingFitness(
            mutator, lambda s: lambda: prune(build(), s), recipe, 'landscape'
        )
        fitness({'stage1.conv1': 24, …})  # {'score': …, 'seconds': …}

    Args:
        mutator (DMSMutator): Prepared; turns choices into structures.
        candidate (Callable): Structure → what the recipe takes.
        recipe (Callable): Trains it, see
            :func:`dms_mmrazor.ranking.rank.rank_subnets`.
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
        recipe: Recipe,
        score: str = 'landscape',
        seed: int = 0,
    ) -> None:
        if check_score(score) not in SINGLE:
            raise DMSError(
                f'`fitness={score}` compares several candidates with each '
                f'other; one alone has {", ".join(SINGLE)}.'
            )
        self.mutator = mutator
        self.candidate = candidate
        self.recipe = recipe
        self.score = score
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
        score = LAST if found.diverged else SINGLE[self.score](found)
        return {'score': score, 'seconds': sum(found.costs.values())}
