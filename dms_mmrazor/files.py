"""Files that a reader never sees half of, and YAML that is checked."""

import os
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, TypeVar

import yaml

from dms_mmrazor.errors import DMSError


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


T = TypeVar('T')

# PyYAML's constructors of dates and numbers pass on what Python raises.
_YAML_ERRORS = (
    yaml.YAMLError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)


def plain_value(value: Any) -> Any:
    """A value that any YAML reader knows; what is none, as text."""
    known = isinstance(value, (int, float, str)) or value is None
    return value if known else str(value)


def read_yaml(path: str, what: str) -> Any:
    """Plain data of a YAML file.

    Args:
        path (str): The file.
        what (str): What it should be, for messages: 'structure file'.

    Raises:
        DMSError: If it does not exist or cannot be read.
    """
    if os.path.isdir(path):
        raise DMSError(f'{path} is a folder: give the {what} in it.')
    if not os.path.isfile(path):
        raise DMSError(f'{what} {path} does not exist.')
    try:
        with open(path, encoding='utf-8') as file:
            return yaml.safe_load(file)
    except _YAML_ERRORS as error:
        line = ' '.join(str(error).split())
        raise DMSError(f'{path} cannot be read as YAML: {line}') from None


def write_yaml(data: Any, path: str, inline_lists: bool = False) -> None:
    """Write plain data; a reader never sees half of it.

    Args:
        data (Any): Dicts, lists, texts and numbers.
        path (str): The file.
        inline_lists (bool): Write lists and dicts of numbers in one line.
            Defaults to False.
    """
    with written_at_once(path) as temporary:
        with open(temporary, 'w', encoding='utf-8') as file:
            yaml.safe_dump(
                data,
                file,
                sort_keys=False,
                default_flow_style=None if inline_lists else False,
                width=1 << 16,
            )


def read_field(raw: Any, where: str, key: str, parse: Callable[[Any], T]) -> T:
    """One field of a part of a file.

    Args:
        raw (dict): The part.
        where (str): File and part, for messages.
        key (str): Name of the field.
        parse (Callable): Checks the value and makes something of it; raises
            a TypeError or ValueError that says what is wrong.

    Raises:
        DMSError: If it is missing or wrong; file, part and field are named.
    """
    if not isinstance(raw, dict) or key not in raw:
        raise DMSError(f'{where} has no field {key!r}.')
    try:
        return parse(raw[key])
    except (TypeError, ValueError) as error:
        raise DMSError(f'{where}: `{key}` is broken: {error}.') from None


def as_count(value: Any) -> int:
    """A whole number >= 0.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f'{value!r} is not a number of something')
    return value


def as_mapping(value: Any) -> Dict[str, Any]:
    """A mapping.

    Raises:
        ValueError: If it is something else.
    """
    if not isinstance(value, dict):
        raise ValueError(f'it is a {type(value).__name__}, not a mapping')
    return value
