"""Build the weights' optimizer of a search as if nothing were searched."""

from typing import Any, Dict, Optional

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_CONSTRUCTORS,
)
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.registry import OPTIM_WRAPPER_CONSTRUCTORS

_DEFAULT = 'DefaultOptimWrapperConstructor'

# What mmyolo's constructors read from the optimizer's options.
_BATCH_SIZE = 'batch_size_per_gpu'


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class DMSOptimWrapperConstructor:
    """Another constructor, applied to the architecture of a search.

    A search needs no constructor of its own: pruning ratios are not in the
    optimizer. This one is for constructors that know an architecture by the
    names of its layers (layer-wise decay), and for configs that were written
    when it was needed.

    Args:
        optim_wrapper_cfg (dict): As for the weights' constructor.
        paramwise_cfg (dict, optional): ``constructor`` (str): constructor
            for the weights, by default mmengine's. Everything else goes to
            that constructor. Defaults to None.

    Raises:
        DMSError: If there are settings of the structure, which has its own.
    """

    def __init__(
        self,
        optim_wrapper_cfg: Dict[str, Any],
        paramwise_cfg: Optional[Dict[str, Any]] = None,
    ) -> None:
        paramwise_cfg = dict(paramwise_cfg or {})
        if 'structure' in paramwise_cfg:
            raise DMSError(
                '`optim_wrapper.paramwise_cfg.structure` has moved: the '
                'structure is not in the optimizer any more. Remove it; the '
                'default needs no learning rate. For the former steps write '
                "`model.structure_step=dict(rule='plain', "
                f'lr={_old_lr(paramwise_cfg["structure"])})`.'
            )
        self.optim_wrapper_cfg = dict(optim_wrapper_cfg)
        self.constructor = paramwise_cfg.pop('constructor', _DEFAULT)
        self.paramwise_cfg = paramwise_cfg or None

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper of a :class:`DMSAlgorithm`.

        Raises:
            DMSError: If the model is no search, or the optimizer has an
                option of mmyolo's constructors, but another one would get
                it.
        """
        algorithm = model.module if is_model_wrapper(model) else model
        if not hasattr(algorithm, 'structure_only'):
            raise DMSError(
                '`optim_wrapper.constructor=DMSOptimWrapperConstructor` needs '
                f'a DMSAlgorithm as `model`, got {type(algorithm).__name__}.'
            )
        if algorithm.structure_only:
            return self._without_weights(algorithm.anchor)
        self._check_constructor()
        return MMENGINE_CONSTRUCTORS.build(
            dict(
                type=self.constructor,
                optim_wrapper_cfg=self.optim_wrapper_cfg,
                paramwise_cfg=self.paramwise_cfg,
            )
        )(algorithm.architecture)

    def _check_constructor(self) -> None:
        """Raise if the weights' own constructor was lost."""
        default = self.constructor == _DEFAULT
        if default and _BATCH_SIZE in self.optim_wrapper_cfg['optimizer']:
            raise DMSError(
                f"`optim_wrapper.optimizer.{_BATCH_SIZE}` is for mmyolo's "
                'constructor: keep it by `optim_wrapper.paramwise_cfg.'
                "constructor='YOLOv5OptimizerConstructor'`."
            )

    def _without_weights(self, anchor: nn.Parameter) -> OptimWrapper:
        """An optimizer of a parameter that never moves."""
        cfg = dict(self.optim_wrapper_cfg)
        cfg.pop('clip_grad', None)
        optimizer_cfg = dict(cfg.pop('optimizer'))
        optimizer_cfg.pop(_BATCH_SIZE, None)
        optimizer = OPTIMIZERS.build({**optimizer_cfg, 'params': [anchor]})
        cfg.setdefault('type', 'OptimWrapper')
        return OPTIM_WRAPPERS.build({**cfg, 'optimizer': optimizer})


def _old_lr(structure: Any) -> Any:
    """The learning rate that an old config has."""
    return structure.get('lr', 5e-3) if isinstance(structure, dict) else 5e-3
