"""The file of candidates: one line of JSON each, behind a line of settings.

Lines are appended as they come, so that whatever ends a search leaves all
of them but, at worst, the last.
"""

import json
import os.path as osp
from typing import Any, Dict, List

from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import write_text
from dms_mmrazor.search.evolution import Candidate


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
