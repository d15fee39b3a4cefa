"""What is built from a config's ``model`` key.

Nothing is imported here, so that rooms below, which need a part of this one,
can be imported first; :mod:`dms_mmrazor.plugin` imports everything.
"""

# First of all: mmrazor has to be imported by `compat`.
from dms_mmrazor import registry  # noqa: F401
