"""The one exception type that users see."""


class DMSError(ValueError):
    """A mistake that the user can mend.

    The message is one line (tables may follow it) that names the config key,
    layer or file, its value and what to do. Command-line tools print it
    without a traceback and exit with status 2.
    """
