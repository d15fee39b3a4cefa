"""The one exception type that users see, and those that are passed on."""

from difflib import get_close_matches
from typing import Any, Iterable


class DMSError(ValueError):
    """A mistake that the user can mend.

    The message is one line (tables may follow it) that names the config key,
    layer or file, its value and what to do. Command-line tools print it
    without a traceback and exit with status 2.
    """


def check_flag(key: str, value: Any) -> bool:
    """A setting that is on or off; text such as 'no' would be on.

    Args:
        key (str): Its name, for the message.
        value (Any): What a config says.

    Raises:
        DMSError: If it is neither True nor False.
    """
    if not isinstance(value, bool):
        raise DMSError(f'`{key}` must be True or False, got {value!r}.')
    return value


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """A question that ends a message about a name that there is not.

    Args:
        name (Any): What the user wrote.
        known (Iterable[str]): Names that there are.

    Returns:
        str: It begins with a space; empty if there are no names.
    """
    names = list(dict.fromkeys(known))
    close = get_close_matches(str(name), names, n=3, cutoff=0.0)
    return f' Did you mean one of {close}?' if close else ''


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a failure says nothing of the model, but of the machine."""
    # Not before: whoever imports the class above alone needs no torch.
    import torch

    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ('out of memory', "can't allocate")
    )


def raise_device_error(error: Exception) -> None:
    """Pass on what is no answer of a module's code: the device gave up.

    Whoever tries a module and takes an error for an answer calls this first.

    Args:
        error (Exception): What was raised.

    Raises:
        Exception: The same, if memory ran out or the device failed.
    """
    if is_out_of_memory(error) or 'CUDA error' in str(error):
        raise error
