"""Evolution and random search over the structures of a supernet.

What a gradient finds in one training, these find by trying: DMS is compared
with them in Tables 3, 13 and 16 of the DMS paper. Nothing here needs a
runner: a fitness is any function of choices.

What is tried follows from the seed and the scores so far alone. A search
that was interrupted is therefore repeated from the start with the known
scores in place of the fitness, and ends as it would have ended.
"""

import random
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from dms_mmrazor.errors import DMSError
from dms_mmrazor.supernet.choice_space import Choices, ChoiceSpace

Fitness = Callable[[Choices], Mapping[str, float]]
"""Judges a structure: ``score``, larger is better, and whatever else belongs
into the file of candidates (``forward_images`` and ``backward_images``, say).
"""

TRIES = 100
"""Attempts to find a structure that has not been tried yet."""


class EvolutionSettings(NamedTuple):
    """How structures are bred.

    The defaults are MMRazor's; OFA has a population of 100, 500
    generations, 25 parents and 50 mutations.

    Attributes:
        population (int): Structures of a generation. Defaults to 50.
        generations (int): Of which the first is random: 1 is a random
            search. Defaults to 20.
        parents (int): Best structures so far, of which the next ones are
            bred. Defaults to 10.
        mutations (int): Of a generation; the others are crossovers.
            Defaults to 25.
        mutation_prob (float): Of each number of a mutated structure to be
            drawn anew. Defaults to 0.1.
        seed (int): Defaults to 0.
    """

    population: int = 50
    generations: int = 20
    parents: int = 10
    mutations: int = 25
    mutation_prob: float = 0.1
    seed: int = 0

    def check(self, owner: str) -> 'EvolutionSettings':
        """Return the settings if they can be meant.

        Args:
            owner (str): Whose they are, for the message.

        Raises:
            DMSError: If one is out of range.
        """
        least = dict(population=1, generations=1, parents=1, mutations=0)
        for name, low in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise DMSError(
                    f'{owner}: `{name}` must be an int >= {low}, got '
                    f'{value!r}.'
                )
        if self.mutations > self.population:
            raise DMSError(
                f'{owner}: `mutations` ({self.mutations}) must not exceed '
                f'`population` ({self.population}), of which it is a part.'
            )
        if not 0 < self.mutation_prob <= 1:
            raise DMSError(
                f'{owner}: `mutation_prob` must be in (0, 1], got '
                f'{self.mutation_prob!r}.'
            )
        return self


class Candidate(NamedTuple):
    """A structure that was tried.

    Attributes:
        generation (int): From 0.
        origin (str): 'random', 'mutation' or 'crossover'.
        choices (dict[str, int]): Kept channels (blocks) by unit (stage).
        resources (dict[str, float]): By kind, absolute.
        result (dict[str, float]): What the fitness returned.
    """

    generation: int
    origin: str
    choices: Choices
    resources: Dict[str, float]
    result: Dict[str, float]

    @property
    def score(self) -> float:
        """Larger is better."""
        return self.result['score']


class Evolution:
    """Breeds structures within the targets of a space.

    Attributes:
        candidates (list[Candidate]): Everything tried so far, in order.

    Args:
        space (ChoiceSpace): What may be tried.
        settings (EvolutionSettings): How it is bred.
    """

    def __init__(
        self, space: ChoiceSpace, settings: EvolutionSettings
    ) -> None:
        self.space = space
        self.settings = settings
        self.candidates: List[Candidate] = []
        self._tried: Dict[Tuple[int, ...], Dict[str, float]] = {}

    @property
    def best(self) -> Candidate:
        """The candidate with the highest score, the first of equals."""
        return max(self.candidates, key=lambda candidate: candidate.score)

    def run(
        self,
        fitness: Fitness,
        done: Sequence[Candidate] = (),
        note: Optional[Callable[[Candidate], None]] = None,
    ) -> Candidate:
        """Try all generations; a structure is never judged twice.

        Args:
            fitness (Callable): Judges a structure.
            done (Sequence[Candidate]): What an interrupted run of the same
                search has tried. Defaults to ().
            note (Callable, optional): Takes every new candidate. Defaults
                to None.

        Returns:
            Candidate: The best one.

        Raises:
            DMSError: If ``done`` is of another search, or a fitness gives
                no score.
        """
        known = iter(done)
        for generation in range(self.settings.generations):
            for origin, choices in self._bred(generation):
                old = next(known, None)
                if old is not None:
                    _check_same(old, generation, choices)
                    self._add(old)
                    continue
                result = self._tried.get(self._key(choices))
                if result is None:
                    result = _scored(fitness(choices))
                new = Candidate(
                    generation,
                    origin,
                    choices,
                    self.space.resources(choices),
                    result,
                )
                self._add(new)
                if note is not None:
                    note(new)
        return self.best

    def _add(self, candidate: Candidate) -> None:
        self.candidates.append(candidate)
        self._tried[self._key(candidate.choices)] = candidate.result

    def _key(self, choices: Choices) -> Tuple[int, ...]:
        return tuple(choices[name] for name in self.space.names)

    def _bred(self, generation: int) -> Iterator[Tuple[str, Choices]]:
        """Structures of a generation, with how they were made."""
        settings, space = self.settings, self.space
        draw = random.Random(f'{settings.seed}/{generation}')
        taken = set(self._tried)

        def fresh(make: Callable[[], Choices]) -> Choices:
            for _ in range(TRIES):
                choices = make()
                if self._key(choices) not in taken:
                    break
            taken.add(self._key(choices))
            return choices

        ranked = sorted(self.candidates, key=lambda c: -c.score)
        unique = {self._key(c.choices): c.choices for c in ranked}
        parents = list(unique.values())[: settings.parents]

        def mutated() -> Choices:
            parent = draw.choice(parents)
            return space.mutate(parent, settings.mutation_prob, draw)

        def crossed() -> Choices:
            first, second = draw.choice(parents), draw.choice(parents)
            return space.cross(first, second, draw)

        for index in range(settings.population):
            if generation == 0:
                yield 'random', fresh(lambda: space.sample(draw))
            elif index < settings.mutations:
                yield 'mutation', fresh(mutated)
            else:
                yield 'crossover', fresh(crossed)


def _check_same(old: Candidate, generation: int, choices: Choices) -> None:
    """Raise unless a known candidate is the one that comes next."""
    if old.generation != generation or old.choices != choices:
        raise DMSError(
            f'the known candidates are of another search: in generation '
            f'{generation} it would have tried {choices}. Remove the file of '
            'candidates, or take another work dir.'
        )


def _scored(result: Mapping[str, Any]) -> Dict[str, float]:
    """What a fitness has returned, as plain numbers.

    Raises:
        DMSError: If there is no score, or it is not a number.
    """
    score = result.get('score') if isinstance(result, Mapping) else None
    if not isinstance(score, (int, float)) or score != score:
        raise DMSError(
            'a fitness must return a dict with a number `score`, larger is '
            f'better; got {result!r}.'
        )
    return {key: float(value) for key, value in result.items()}
