"""What the hooks of a search read off a runner."""

import os.path as osp
from typing import Any, Dict, Mapping, Optional

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner
from torch import Tensor
from torch.optim import Optimizer

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.version import __version__


def get_algorithm(runner: Runner) -> DMSAlgorithm:
    """The algorithm that a runner trains, out of its wrappers.

    Raises:
        DMSError: If it is something else.
    """
    model = runner.model
    while is_model_wrapper(model):
        model = model.module
    if not isinstance(model, DMSAlgorithm):
        raise DMSError(
            "ResourceHook needs `model=dict(type='DMSAlgorithm', …)`, got "
            f'{type(model).__name__}.'
        )
    return model


def grad_scale(runner: Runner) -> Optional[Tensor]:
    """Loss scale of AMP as a tensor, without synchronization, or None."""
    wrapper = runner.optim_wrapper
    if not isinstance(wrapper, AmpOptimWrapper):
        return None
    importance = get_algorithm(runner).mutator.topk.importance
    return wrapper.loss_scaler.scale(importance.new_ones(()))


class StepCounter:
    """Tells whether an optimizer has stepped, whatever the loss scale does.

    A scaler skips the step of an overflow and lowers its scale, but a static
    scale does not move, and mmengine resets one. Does not synchronize.

    Args:
        optimizer (Optimizer): Of the weights.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        # Before torch 2 there are no such hooks; a fused optimizer steps
        # always and decides on the device.
        self.works = hasattr(optimizer, 'register_step_post_hook') and not (
            getattr(optimizer, '_step_supports_amp_scaling', False)
        )
        self._stepped = False
        if self.works:
            optimizer.register_step_post_hook(self._note)

    def _note(self, *_: Any) -> None:
        self._stepped = True

    def skipped(self) -> bool:
        """Whether there was no step since the last call."""
        skipped = self.works and not self._stepped
        self._stepped = False
        return skipped


def step_scale(
    runner: Runner, before: Optional[Tensor], counter: StepCounter
) -> Optional[Tensor]:
    """Loss scale of the step; NaN if the scaler has skipped the step.

    The gradients of the masks can be finite when those of a weight are
    not; a skipped step must not count for the structure either.

    Args:
        runner (Runner): After an iteration.
        before (Tensor, optional): :func:`grad_scale` before it.
        counter (StepCounter): Of the optimizer.
    """
    skipped = counter.skipped()
    if before is None:
        return None
    if skipped:
        return torch.full_like(before, float('nan'))
    lowered = grad_scale(runner) < before
    return torch.where(lowered, torch.full_like(before, float('nan')), before)


def search_info(runner: Runner, wanted: Mapping[str, Any]) -> Dict[str, Any]:
    """How a structure was found, for the structure file.

    Args:
        runner (Runner): After a search.
        wanted (Mapping[str, Any]): Targets as the config has them.
    """
    return {
        'dms_mmrazor': __version__,
        'torch': str(torch.__version__),
        'config': osp.basename(runner.cfg.filename or ''),
        'target': {kind: _plain(value) for kind, value in wanted.items()},
        'iterations': int(runner.iter),
        'seed': _plain(runner.seed),
    }


def dataset_meta(runner: Runner) -> Optional[Mapping[str, Any]]:
    """Names of the classes and the like, if the training data has them.

    Args:
        runner (Runner): After a search.
    """
    return getattr(runner.train_dataloader.dataset, 'metainfo', None)


def _plain(value: Any) -> Any:
    """A value that any YAML reader knows."""
    known = isinstance(value, (int, float, str)) or value is None
    return value if known else str(value)
