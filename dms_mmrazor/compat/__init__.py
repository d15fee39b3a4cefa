"""The one place that works around other packages.

Every module here names the symptom it cures, the versions it was seen with
and when it can be dropped. :func:`apply` is idempotent and is called before
any other part of this package imports mmrazor.
"""

from dms_mmrazor.compat.atomic_files import write_files_at_once
from dms_mmrazor.compat.checkpoint_loading import allow_mmengine_checkpoints
from dms_mmrazor.compat.collate_scope import allow_inherited_collate
from dms_mmrazor.compat.config_packages import register_config_package
from dms_mmrazor.compat.mmpretrain_import import skip_multimodal_models
from dms_mmrazor.compat.mmrazor_import import import_mmrazor
from dms_mmrazor.compat.mmyolo_import import import_mmyolo
from dms_mmrazor.compat.safe_pickle import load_safely
from dms_mmrazor.compat.tracer_patches import end_wrapping_with_trace

__all__ = [
    'allow_inherited_collate',
    'allow_mmengine_checkpoints',
    'apply',
    'end_wrapping_with_trace',
    'import_mmrazor',
    'import_mmyolo',
    'load_safely',
    'register_config_package',
    'skip_multimodal_models',
    'write_files_at_once',
]


def apply() -> None:
    """Apply every workaround that the installed versions need."""
    allow_mmengine_checkpoints()
    write_files_at_once()
    register_config_package()
    allow_inherited_collate()
    skip_multimodal_models()
    import_mmrazor()
    end_wrapping_with_trace()
    import_mmyolo()
