"""Import mmpretrain 1.2 beside a new transformers.

Symptom: ``import mmpretrain.models`` raises ``TypeError: NoneType takes no
arguments`` as soon as transformers is installed, although most models of
mmpretrain do not use it.
Seen with: mmpretrain 1.2.0, transformers 4.57.6.
Drop when: a release of mmpretrain imports beside transformers 4.57.

Its multimodal models (BLIP and others) import names that transformers has
moved. mmpretrain leaves these models out where transformers is missing; so
they are left out where it lacks the names, too.
"""

import importlib.util
import sys
from importlib.util import find_spec
from pathlib import Path

_MODULE = 'mmpretrain.utils.dependency'
_MOVED = 'find_pruneable_heads_and_indices'


def skip_multimodal_models() -> None:
    """Let mmpretrain be imported without its multimodal models.

    The file that decides it is loaded beforehand, alone: that takes
    milliseconds and imports neither package.
    """
    if not _lacks_names():
        return
    if _MODULE in sys.modules:
        # Read when mmpretrain.models is imported, which may still come.
        sys.modules[_MODULE].WITH_MULTIMODAL = False
        return
    package = find_spec('mmpretrain')
    if package is None or package.origin is None:
        return
    path = Path(package.origin).parent / 'utils' / 'dependency.py'
    spec = importlib.util.spec_from_file_location(_MODULE, str(path))
    if spec is None or not path.is_file():
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    try:
        spec.loader.exec_module(module)
    except ImportError:  # mmpretrain itself says what it lacks
        del sys.modules[_MODULE]
        return
    module.WITH_MULTIMODAL = False


def _lacks_names() -> bool:
    """Whether a transformers is installed that has moved the names."""
    package = find_spec('transformers')
    if package is None or package.origin is None:
        return False
    path = Path(package.origin).parent / 'modeling_utils.py'
    return path.is_file() and _MOVED not in path.read_text(encoding='utf-8')
