"""The one exception type that users see."""

from typing import Any


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
