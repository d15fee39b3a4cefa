"""Which stage of a network a layer belongs to, by its name."""

from itertools import takewhile
from typing import Tuple


def split_name(name: str) -> Tuple[str, str]:
    """Stage and rest of a layer name: what precedes the first number.

    'backbone.layer1.0.conv1' → ('backbone.layer1', '0.conv1'); without a
    number the last part is the rest.
    """
    parts = name.split('.')
    stage = list(takewhile(lambda part: not part.isdigit(), parts))
    if len(stage) == len(parts):
        stage = parts[:-1]
    return '.'.join(stage), '.'.join(parts[len(stage) :])
