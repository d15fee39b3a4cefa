"""YAML files of plain data: read without trust, written in one piece."""

import os
from typing import Any, Callable, Dict, TypeVar

import yaml

from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import written_at_once

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
