"""What a search does not work with, looked for before it starts."""

from typing import Any

from dms_mmrazor.engine.config_keywords import check_keywords
from dms_mmrazor.errors import DMSError


def refuse_unsupported(runner: Any) -> None:
    """Raise for runners and options that a search does not work with.

    Raises:
        DMSError: It names the config key.
    """
    check_keywords(runner.cfg)
    if hasattr(runner, 'strategy'):
        raise DMSError(
            '`runner_type=FlexibleRunner` is not supported in a search: its '
            'strategies split or rewrite the weights that masks multiply. '
            'Remove `runner_type` and `strategy`.'
        )
    if runner.cfg.get('compile') and runner.distributed:
        raise DMSError(
            '`compile` is not supported in a search by several processes: '
            'nobody has tested it. Remove it, or search with one process.'
        )
