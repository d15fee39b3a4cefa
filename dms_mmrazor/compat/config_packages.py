"""Let configs inherit from this package's: ``_base_ = 'dms_mmrazor::…'``.

Symptoms: ``AssertionError: mmengine does not support to load dms_mmrazor
config``; and once it does, ``ImageClassifier is not in the mmrazor::model
registry``: mmengine notes the package as scope of whatever a config takes
from the base file, ``dict(architecture=…, **_base_.algorithm)`` makes it
the scope of the whole model, and no types are registered under this name.
Seen with: mmengine 0.10.7, which knows OpenMMLab's own packages only.
Drop when: mmengine looks up any installed package, and leaves scopes out.

The name is added to the table that mmengine reads when a config is opened,
so ``dms_mmrazor`` has to be imported before; its own tools do that. Its base
files spell out the scope of their types and need no note.
"""

import functools
from typing import Optional, Tuple

from mmengine.config import Config, utils

_PACKAGE = 'dms_mmrazor'


def register_config_package() -> None:
    """Add this package to those whose configs can be inherited."""
    utils.MODULE2PACKAGE.setdefault(_PACKAGE, _PACKAGE)
    original = Config._get_cfg_path
    if hasattr(original, 'without_own_scope'):
        return

    @functools.wraps(original)
    def get_cfg_path(
        cfg_path: str, filename: str
    ) -> Tuple[str, Optional[str]]:
        path, scope = original(cfg_path, filename)
        return path, None if scope == _PACKAGE else scope

    get_cfg_path.without_own_scope = True
    Config._get_cfg_path = staticmethod(get_cfg_path)
