"""Give the pruning ratios a parameter group of their own."""

from typing import Any, Callable, Dict, Optional, Sequence

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_CONSTRUCTORS,
)
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.registry import OPTIM_WRAPPER_CONSTRUCTORS

# Optimizer options that would pull or carry a pruning ratio on its own.
_STATELESS = {'weight_decay': 0.0, 'momentum': 0.0, 'nesterov': False}


class ClipWeights:
    """Clips gradients of weights as if nothing else were trained.

    The resource loss alone moves a pruning ratio by lr · gradient; its
    gradient neither enters the norm of the weights' nor is it cut.

    Args:
        clip (Callable): Clips the gradients of the tensors it is given.
        spared (Sequence[Tensor]): Tensors that it is not given.
    """

    def __init__(
        self, clip: Callable[..., Any], spared: Sequence[Tensor]
    ) -> None:
        self.clip = clip
        self.spared = {id(tensor) for tensor in spared}

    def __call__(self, tensors: Sequence[Tensor], **kwargs: Any) -> Any:
        """Clip all but the spared ones."""
        return self.clip(
            [t for t in tensors if id(t) not in self.spared], **kwargs
        )


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class DMSOptimWrapperConstructor:
    """Weights by another constructor, pruning ratios beside them.

    The structural group has its own learning rate, no weight decay and, by
    default, no momentum: the update of a pruning ratio is lr · gradient
    (paper, section A.3.5). :class:`ResourceHook` keeps its learning rate
    from being scheduled with the weights'.

    Args:
        optim_wrapper_cfg (dict): As for mmengine's default constructor.
        paramwise_cfg (dict, optional): ``structure`` (dict): options of the
            structural group, ``lr`` above all (Table 15: 5e-2 … 5e-5).
            ``constructor`` (str): constructor for the weights. Everything
            else goes to that constructor. Defaults to None.
    """

    def __init__(
        self,
        optim_wrapper_cfg: Dict[str, Any],
        paramwise_cfg: Optional[Dict[str, Any]] = None,
    ) -> None:
        paramwise_cfg = dict(paramwise_cfg or {})
        self.optim_wrapper_cfg = dict(optim_wrapper_cfg)
        self.structure = dict(paramwise_cfg.pop('structure', {}))
        self.constructor = paramwise_cfg.pop(
            'constructor', 'DefaultOptimWrapperConstructor'
        )
        self.paramwise_cfg = paramwise_cfg or None
        lr = self.structure.setdefault('lr', 5e-3)
        if not (isinstance(lr, (int, float)) and lr > 0):
            raise DMSError(
                '`optim_wrapper.paramwise_cfg.structure.lr` must be a '
                f'positive number, got {lr!r}.'
            )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper of a :class:`DMSAlgorithm`.

        Raises:
            DMSError: If the model has no structural parameters.
        """
        algorithm = model.module if is_model_wrapper(model) else model
        if not hasattr(algorithm, 'structural_parameters'):
            raise DMSError(
                '`optim_wrapper.constructor=DMSOptimWrapperConstructor` needs '
                f'a DMSAlgorithm as `model`, got {type(algorithm).__name__}.'
            )
        parameters = algorithm.structural_parameters()
        if algorithm.structure_only:
            return self._structure_only(parameters)
        wrapper = MMENGINE_CONSTRUCTORS.build(
            dict(
                type=self.constructor,
                optim_wrapper_cfg=self.optim_wrapper_cfg,
                paramwise_cfg=self.paramwise_cfg,
            )
        )(algorithm.architecture)
        defaults = wrapper.optimizer.defaults
        wrapper.optimizer.add_param_group(
            {**self._group(defaults), 'params': parameters}
        )
        if getattr(wrapper, 'clip_grad_kwargs', None):
            wrapper.clip_func = ClipWeights(wrapper.clip_func, parameters)
        return wrapper

    def _group(self, defaults: Dict[str, Any]) -> Dict[str, Any]:
        """Options of the structural group."""
        options = {k: v for k, v in _STATELESS.items() if k in defaults}
        options.update(self.structure)
        return {**options, 'structure_lr': self.structure['lr']}

    def _structure_only(self, parameters: Any) -> OptimWrapper:
        """An optimizer of the pruning ratios alone."""
        cfg = dict(self.optim_wrapper_cfg)
        optimizer_cfg = dict(cfg.pop('optimizer'))
        optimizer = OPTIMIZERS.build({**optimizer_cfg, 'params': parameters})
        optimizer.param_groups[0].update(self._group(optimizer.defaults))
        cfg.setdefault('type', 'OptimWrapper')
        return OPTIM_WRAPPERS.build({**cfg, 'optimizer': optimizer})
