"""Import mmrazor 1.0.0 on torch >= 2.

Symptom: ``import mmrazor`` raises an ``ImportError``, because its
quantization tables import names that torch 2 made private.
Seen with: mmrazor 1.0.0, torch 2.0 to 2.11.
Drop when: a release of mmrazor imports on the torch in use.

mmrazor itself skips those tables on torch < 1.13, so torch presents itself
as 1.12.1 while mmrazor is imported, and only then. Pruning and the FX tracer
do not depend on that branch.
"""

import importlib
import sys

import torch

_VERSION_WITHOUT_QUANTIZATION = '1.12.1'


def import_mmrazor() -> None:
    """Import ``mmrazor`` and its models, on any torch."""
    if 'mmrazor.models' in sys.modules:
        return
    version = torch.__version__
    if int(version.split('.')[0]) >= 2:
        torch.__version__ = _VERSION_WITHOUT_QUANTIZATION
    try:
        importlib.import_module('mmrazor.models')
        importlib.import_module('mmrazor.engine')
    finally:
        torch.__version__ = version
