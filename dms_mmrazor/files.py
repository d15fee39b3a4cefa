"""Files that a reader never sees half of."""

import os
from contextlib import contextmanager
from typing import Iterator


@contextmanager
def written_at_once(path: str) -> Iterator[str]:
    """Give a temporary path; its file takes the final place at the end.

    If anything fails, the file that stood there before stays. The new one
    has the permissions of any newly made file.

    Args:
        path (str): The final path. Its folder is made if missing.

    Yields:
        str: Where to write.
    """
    path = os.path.abspath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f'{path}.{os.getpid()}.tmp'
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def write_text(path: str, text: str) -> None:
    """Write a text file at once, in UTF-8.

    Args:
        path (str): The final path. Its folder is made if missing.
        text (str): All of it.
    """
    with written_at_once(path) as temporary:
        with open(temporary, 'w', encoding='utf-8') as file:
            file.write(text)
