"""What a part of a config says it is, and what its class takes."""

import inspect
from typing import Any, List, Mapping


def type_name(cfg: Mapping[str, Any], key: str = 'type') -> str:
    """Name of a class in a config, which has it as a text or a class.

    Args:
        cfg (Mapping[str, Any]): Part of a config.
        key (str): Where the class is. Defaults to 'type'.

    Returns:
        str: Without scope; '' if there is none.
    """
    kind = cfg.get(key) or ''
    return getattr(kind, '__name__', str(kind).rpartition('.')[2])


def has_type(cfg: Any, name: str) -> bool:
    """Whether a value of a config is a part that says it is of a class.

    Args:
        cfg (Any): Part of a config, or anything else.
        name (str): Name of the class, without scope.
    """
    return isinstance(cfg, dict) and type_name(cfg) == name


def settings_of(known_class: type) -> List[str]:
    """Names of the arguments of a class, but ``**kwargs``."""
    parameters = inspect.signature(known_class).parameters.values()
    return [p.name for p in parameters if p.kind != p.VAR_KEYWORD]
