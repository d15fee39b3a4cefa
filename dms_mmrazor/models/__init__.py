"""Everything that is built from a config's ``model`` key."""

# isort: off
# First of all: mmrazor has to be imported by `compat`.
from dms_mmrazor import registry

# isort: on
from dms_mmrazor.models import (
    algorithms,
    enlarge,
    mutables,
    mutators,
    ops,
    subnet,
    tracing,
    units,
)

__all__ = [
    'algorithms',
    'mutables',
    'mutators',
    'ops',
    'registry',
    'subnet',
    'enlarge',
    'tracing',
    'units',
]
