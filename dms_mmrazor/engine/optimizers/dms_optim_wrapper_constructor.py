"""Give the pruning ratios a parameter group of their own."""

from typing import Any, Callable, Dict, Mapping, Optional, Sequence

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_CONSTRUCTORS,
)
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import Tensor, nn
from torch.optim import Optimizer

from dms_mmrazor.engine.structure_group import mark_structure_group
from dms_mmrazor.engine.structure_steps import use_plain_steps
from dms_mmrazor.errors import DMSError
from dms_mmrazor.registry import OPTIM_WRAPPER_CONSTRUCTORS

# What logs and hooks shall read of options that pruning ratios do not have.
_UNUSED = {'weight_decay': 0.0, 'momentum': 0.0, 'nesterov': False}

_DEFAULT = 'DefaultOptimWrapperConstructor'

_KEY = 'optim_wrapper.paramwise_cfg.structure'

# What mmyolo's constructors read from the optimizer's options.
_BATCH_SIZE = 'batch_size_per_gpu'


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

    The structural group has its own learning rate and nothing else: the
    update of a pruning ratio is lr · gradient (paper, section A.3.5),
    whatever optimizer the weights have. :class:`ResourceHook` keeps this
    learning rate from being scheduled with the weights'.

    Args:
        optim_wrapper_cfg (dict): As for the weights' constructor.
        paramwise_cfg (dict, optional): ``structure`` (dict): ``lr`` of the
            structural group (Table 15: 5e-2 … 5e-5), 5e-3 by default.
            ``constructor`` (str): constructor for the weights, by default
            mmengine's; for mmyolo's YOLOs 'YOLOv5OptimizerConstructor'.
            Everything else goes to that constructor. Defaults to None.

    Raises:
        DMSError: If the structural learning rate is not positive, or there
            is another option beside it.
    """

    def __init__(
        self,
        optim_wrapper_cfg: Dict[str, Any],
        paramwise_cfg: Optional[Dict[str, Any]] = None,
    ) -> None:
        paramwise_cfg = dict(paramwise_cfg or {})
        self.optim_wrapper_cfg = dict(optim_wrapper_cfg)
        self.lr = _read_lr(paramwise_cfg.pop('structure', {}))
        self.constructor = paramwise_cfg.pop('constructor', _DEFAULT)
        self.paramwise_cfg = paramwise_cfg or None

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper of a :class:`DMSAlgorithm`.

        Raises:
            DMSError: If the model has no structural parameters, or the
                optimizer has an option of mmyolo's constructors, but
                another one would get it.
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
        self._check_constructor()
        wrapper = MMENGINE_CONSTRUCTORS.build(
            dict(
                type=self.constructor,
                optim_wrapper_cfg=self.optim_wrapper_cfg,
                paramwise_cfg=self.paramwise_cfg,
            )
        )(algorithm.architecture)
        options = self._options(wrapper.optimizer)
        wrapper.optimizer.add_param_group({**options, 'params': parameters})
        self._mark(wrapper)
        if getattr(wrapper, 'clip_grad_kwargs', None):
            wrapper.clip_func = ClipWeights(wrapper.clip_func, parameters)
        return wrapper

    def _check_constructor(self) -> None:
        """Raise if the weights' own constructor was lost."""
        default = self.constructor == _DEFAULT
        if default and _BATCH_SIZE in self.optim_wrapper_cfg['optimizer']:
            raise DMSError(
                f"`optim_wrapper.optimizer.{_BATCH_SIZE}` is for mmyolo's "
                'constructor: keep it by `optim_wrapper.paramwise_cfg.'
                "constructor='YOLOv5OptimizerConstructor'`."
            )

    def _options(self, optimizer: Optimizer) -> Dict[str, Any]:
        """Options of the structural group."""
        known = optimizer.defaults
        unused = {k: v for k, v in _UNUSED.items() if k in known}
        return {**unused, 'lr': self.lr}

    def _mark(self, wrapper: OptimWrapper) -> None:
        """Make the last group the structural one."""
        mark_structure_group(wrapper.optimizer.param_groups[-1], self.lr)
        use_plain_steps(wrapper.optimizer)

    def _structure_only(self, parameters: Any) -> OptimWrapper:
        """An optimizer of the pruning ratios alone, which are not clipped."""
        cfg = dict(self.optim_wrapper_cfg)
        cfg.pop('clip_grad', None)
        optimizer_cfg = dict(cfg.pop('optimizer'))
        optimizer_cfg.pop(_BATCH_SIZE, None)
        optimizer = OPTIMIZERS.build({**optimizer_cfg, 'params': parameters})
        optimizer.param_groups[0].update(self._options(optimizer))
        cfg.setdefault('type', 'OptimWrapper')
        wrapper = OPTIM_WRAPPERS.build({**cfg, 'optimizer': optimizer})
        self._mark(wrapper)
        return wrapper


def _read_lr(structure: Any) -> float:
    """Learning rate of the pruning ratios.

    Raises:
        DMSError: If it is not positive, or not alone.
    """
    if not isinstance(structure, Mapping):
        raise DMSError(f'`{_KEY}` must be dict(lr=…), got {structure!r}.')
    for key in structure:
        if key != 'lr':
            raise DMSError(
                f'`{_KEY}.{key}` has no meaning: pruning ratios move by '
                'lr · gradient, whatever optimizer the weights have. Remove '
                'it.'
            )
    lr = structure.get('lr', 5e-3)
    if not (isinstance(lr, (int, float)) and lr > 0):
        raise DMSError(f'`{_KEY}.lr` must be a positive number, got {lr!r}.')
    return lr
