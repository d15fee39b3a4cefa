"""Handlers by the class of what they handle, loaded with its library."""

from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Dict, Generic, Iterable, Optional, TypeVar, Union

Handler = TypeVar('Handler')

_PLUGINS = 'dms_mmrazor.plugins'
"""Has a module of the same name for each library whose classes it knows."""


def qualified_name(kind: type) -> str:
    """Full name of a class."""
    return f'{kind.__module__}.{kind.__qualname__}'


@lru_cache(maxsize=None)
def load_plugin(library: str) -> Optional[ModuleType]:
    """Import what this package knows of a library, if there is something.

    Args:
        library (str): Name of its top package, which somebody has imported.

    Returns:
        ModuleType, optional: The module of `plugins/` of that name.
    """
    # A script's `__main__` or a name with a dash is no library.
    if library.isidentifier() and not library.startswith('_'):
        if find_spec(f'{_PLUGINS}.{library}') is not None:
            return import_module(f'{_PLUGINS}.{library}')
    return None


class ByType(Generic[Handler]):
    """Finds the handler of a class, or of the nearest class it extends."""

    def __init__(self) -> None:
        self._handlers: Dict[Union[type, str], Handler] = {}
        # Of the types that were asked for so far:
        self._found: Dict[type, Optional[Handler]] = {}

    def add(self, handler: Handler, types: Iterable[Union[type, str]]) -> None:
        """Register a handler.

        Args:
            handler (Any): What handles them.
            types (Iterable[type | str]): Classes, or full names of classes
                of libraries that nobody needs to have.
        """
        for key in types:
            self._handlers[key] = handler
        self._found.clear()

    def find(self, wanted: type) -> Optional[Handler]:
        """The handler of a class; its libraries' plugins are loaded."""
        if wanted not in self._found:
            for base in wanted.__mro__:
                load_plugin(base.__module__.partition('.')[0])
            found = (
                self._handlers.get(
                    base, self._handlers.get(qualified_name(base))
                )
                for base in wanted.__mro__
            )
            handler = next((h for h in found if h is not None), None)
            self._found[wanted] = handler
        return self._found[wanted]
