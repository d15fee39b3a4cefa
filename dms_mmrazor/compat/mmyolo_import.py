"""Import mmyolo 0.6.0 beside mmcv 2.1.

Symptom: ``import mmyolo`` raises ``AssertionError: MMCV==2.1.0 is used but
incompatible``.
Seen with: mmyolo 0.6.0, mmcv 2.1.0.
Drop when: a release of mmyolo accepts mmcv 2.1.

mmyolo works with mmcv 2.1; only the check in its ``__init__`` does not know
that version. mmcv presents itself as 2.0.1 while that one file runs, and only
then: mmyolo's models are imported later, when they are needed.
"""

import importlib
import sys
from importlib.util import find_spec

_ACCEPTED_VERSION = '2.0.1'
_WORKING_VERSIONS = '2.1.'


def import_mmyolo() -> None:
    """Import ``mmyolo`` where it is installed; takes milliseconds.

    mmdet is imported before, so that its own check sees the real version.
    What cannot be imported is left to whoever uses it, who then reads that
    package's own message: many searches need neither.
    """
    if 'mmyolo' in sys.modules or find_spec('mmyolo') is None:
        return
    try:
        mmcv = importlib.import_module('mmcv')
        importlib.import_module('mmdet')
    except (AssertionError, ImportError):
        return
    version = mmcv.__version__
    if not version.startswith(_WORKING_VERSIONS):
        return
    mmcv.__version__ = _ACCEPTED_VERSION
    try:
        importlib.import_module('mmyolo')
    except (AssertionError, ImportError):
        return
    finally:
        mmcv.__version__ = version
