"""Write mmengine's checkpoints in one piece.

Symptom: a training that is killed while it writes a checkpoint leaves half
of a file, under the name of a whole one.
Seen with: mmengine 0.10.7.
Drop when: ``LocalBackend`` writes to a temporary file and renames it.

The text file ``last_checkpoint`` is written without a backend; who resumes
has to look beyond it (:mod:`dms_mmrazor.cli.training_start`).
"""

from pathlib import Path
from typing import Union

from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend

from dms_mmrazor.files import written_at_once


class AtomicLocalBackend(LocalBackend):
    """Local files that a reader never sees half of."""

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Write bytes."""
        with written_at_once(str(filepath)) as temporary:
            super().put(obj, temporary)

    def put_text(
        self, obj: str, filepath: Union[str, Path], encoding: str = 'utf-8'
    ) -> None:
        """Write text."""
        with written_at_once(str(filepath)) as temporary:
            super().put_text(obj, temporary, encoding)


def write_files_at_once() -> None:
    """Use it for every local path."""
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')
