"""Let configs inherit from this package's: ``_base_ = 'dms_mmrazor::…'``.

Symptom: ``AssertionError: mmengine does not support to load dms_mmrazor
config``.
Seen with: mmengine 0.10.7, which knows OpenMMLab's own packages only.
Drop when: mmengine looks up any installed package.

The name is added to the table that mmengine reads when a config is opened,
so ``dms_mmrazor`` has to be imported before; its own tools do that.
"""

from mmengine.config import utils


def register_config_package() -> None:
    """Add this package to those whose configs can be inherited."""
    utils.MODULE2PACKAGE.setdefault('dms_mmrazor', 'dms_mmrazor')
