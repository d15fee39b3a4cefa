"""The record and the card of a search by evolution or at random."""

from typing import Dict, Mapping

from mmengine.runner import Runner

from dms_mmrazor.engine.retraining import write_retrain_config
from dms_mmrazor.engine.search_watch import describe_start
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.search.evolution import Candidate
from dms_mmrazor.search.record import (
    Recorder,
    describe_search,
    record_interval,
)
from dms_mmrazor.subnet import Structure
from dms_mmrazor.visualization import write_card


class CandidateWatch:
    """Writes what people look at; on the main process alone.

    Args:
        runner (Runner): Of the search.
        algorithm (DMSAlgorithm): Whose subnets are tried.
        loop (str): Name and settings of the loop, to be shown.
        targets (Mapping[str, float]): Absolute, by kind.
        folder (str): Where the subnet will be written.
        done (int): Structures that an interrupted search has tried.
    """

    def __init__(
        self,
        runner: Runner,
        algorithm: DMSAlgorithm,
        loop: str,
        targets: Mapping[str, float],
        folder: str,
        done: int,
    ) -> None:
        self.runner = runner
        self.mutator = algorithm.mutator
        self.targets = dict(targets)
        self.every = record_interval(runner.max_iters)
        self.recorder = Recorder(folder)
        search = describe_search(
            algorithm.mutator,
            loop,
            targets,
            runner.max_iters,
            by='candidates',
            **describe_start(runner, folder),
        )
        self.recorder.begin(search, done)

    def tried(self, number: int, last: Candidate, best: Candidate) -> None:
        """Note a structure and its score.

        Args:
            number (int): How many have been tried.
            last (Candidate): What was tried.
            best (Candidate): The best one so far.
        """
        scores = {'score': last.score, 'best so far': best.score}
        self.recorder.score(number, scores)
        if number % self.every and number != self.runner.max_iters:
            return
        self.recorder.tried(
            number,
            f'generation {last.generation + 1}',
            self.targets,
            self.mutator.structure(best.choices),
            best.resources,
        )

    def end(
        self,
        structure: Structure,
        number: int,
        score: float,
        measured: Dict[str, float],
    ) -> str:
        """Note the exported subnet and write the card.

        Args:
            structure (Structure): As it was written.
            number (int): Structures tried.
            score (float): Of the exported one.
            measured (dict[str, float]): Milliseconds, if measured.

        Returns:
            str: Path of the card.
        """
        folder = self.recorder.folder
        write_retrain_config(self.runner, folder)
        metrics = {'score': score}
        self.recorder.budget(
            'subnet', '.', number, structure, metrics, measured
        )
        return write_card(folder)
