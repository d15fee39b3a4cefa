"""Candidates of a search by evolution or at random: file, record and card.

Of the file each line is JSON, one a candidate, behind a line of settings.
Lines are appended as they come, so that whatever ends a search leaves all
of them but, at worst, the last.
"""

import hashlib
import json
import os.path as osp
from typing import Any, Dict, List, Mapping

import torch
from mmengine.runner import Runner

from dms_mmrazor.engine.retraining import write_retrain_config
from dms_mmrazor.engine.search_watch import describe_start
from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import write_text
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.search.evolution import Candidate
from dms_mmrazor.search.record import (
    Recorder,
    describe_search,
    record_interval,
)
from dms_mmrazor.subnet import Structure
from dms_mmrazor.visualization import write_card


class CandidateFile:
    """Candidates and scores of a search, to read and to go on from.

    Args:
        path (str): The file.
        settings (dict): All that candidates and scores depend on.
    """

    def __init__(self, path: str, settings: Dict[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings, default=str))

    def open(self) -> List[Candidate]:
        """Candidates of an interrupted search; starts the file otherwise.

        Raises:
            DMSError: If the file is of a search with other settings.
        """
        done: List[Candidate] = []
        if osp.exists(self.path):
            rows = self._rows()
            if rows:
                self._check(rows[0])
            done = [Candidate(**row) for row in rows[1:]]
        lines = [f'{json.dumps(self.settings)}\n', *map(_line, done)]
        write_text(self.path, ''.join(lines))
        return done

    def append(self, candidate: Candidate) -> None:
        """Write a new candidate down."""
        with open(self.path, 'a', encoding='utf-8') as file:
            file.write(_line(candidate))

    def _rows(self) -> List[Dict[str, Any]]:
        """Lines that were written to their end."""
        with open(self.path, encoding='utf-8') as file:
            lines = file.read().split('\n')[:-1]
        try:
            return [json.loads(line) for line in lines]
        except json.JSONDecodeError as error:
            raise DMSError(
                f'{self.path} is no file of candidates ({error}): remove it, '
                'or take another work dir.'
            ) from None

    def _check(self, old: Dict[str, Any]) -> None:
        for key in {**old, **self.settings}:
            if old.get(key) != self.settings.get(key):
                raise DMSError(
                    f'{self.path} is of a search with other settings '
                    f'({key}: {old.get(key)!r}, now '
                    f'{self.settings.get(key)!r}): remove it, or take '
                    'another work dir.'
                )


def _line(candidate: Candidate) -> str:
    return f'{json.dumps(candidate._asdict())}\n'


def fingerprint(algorithm: DMSAlgorithm) -> str:
    """Of the supernet's weights and of what its blocks are ordered by."""
    found = hashlib.sha256()
    state = algorithm.architecture.state_dict()
    for tensor in [*state.values(), algorithm.mutator.topk.importance]:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


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
