"""A searched model: its space, masks, resources, report and proof."""

# isort: off
# First of all: mmrazor has to be imported by `compat`.
from dms_mmrazor import registry  # noqa: F401

# isort: on
