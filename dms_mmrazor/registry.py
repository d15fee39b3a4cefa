"""Where this package registers: mmrazor's own registries.

Nothing new has to be learned by a config: with
``custom_imports = dict(imports=['dms_mmrazor.plugin'])`` the names of this
package stand beside mmrazor's (``ChannelMutator`` looks its units up in
mmrazor's ``MODELS`` without a scope).
"""

from dms_mmrazor import compat

compat.apply()

from mmrazor.registry import (  # noqa: E402
    HOOKS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    TASK_UTILS,
)

__all__ = ['HOOKS', 'MODELS', 'OPTIM_WRAPPER_CONSTRUCTORS', 'TASK_UTILS']
