"""What the hooks of a search read off a runner."""

import os.path as osp
from contextlib import ExitStack, contextmanager
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

from mmengine.hooks import EMAHook
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import plain_value
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.search.export import how_found
from dms_mmrazor.search.loss_scale import scale_of


def plain_model(runner: Runner) -> nn.Module:
    """The model of a runner, out of its wrappers."""
    model = runner.model
    while is_model_wrapper(model):
        model = model.module
    return model


def get_algorithm(runner: Runner) -> DMSAlgorithm:
    """The algorithm that a runner trains, out of its wrappers.

    Raises:
        DMSError: If it is something else.
    """
    model = plain_model(runner)
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
    return scale_of(wrapper.loss_scaler, importance)


def search_info(runner: Runner, wanted: Mapping[str, Any]) -> Dict[str, Any]:
    """How a structure was found, for the structure file.

    Args:
        runner (Runner): After a search.
        wanted (Mapping[str, Any]): Targets as the config has them.
    """
    return {
        **how_found(wanted, int(runner.iter)),
        'config': osp.basename(runner.cfg.filename or ''),
        'seed': plain_value(runner.seed),
    }


def dataset_meta(runner: Runner) -> Optional[Mapping[str, Any]]:
    """Names of the classes and the like, if the training data has them.

    Args:
        runner (Runner): After a search.
    """
    return getattr(runner.train_dataloader.dataset, 'metainfo', None)


def extent_of(runner: Runner) -> Tuple[int, Optional[float]]:
    """Iterations of a training and of an epoch, if it has epochs."""
    by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
    total = max(runner.max_iters, 1)
    return total, total / max(runner.max_epochs, 1) if by_epoch else None


def structure_steps(runner: Runner) -> int:
    """Steps that the structure of a runner's training takes."""
    counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    return max(-(-runner.max_iters // counts), 1)


def share_structure(runner: Runner, algorithm: DMSAlgorithm) -> None:
    """Let the averaged copy of a search use the search's own structure.

    Pruning ratios, importances and everything else of the mutator then are
    the same tensors in both: averaging or exchanging them changes nothing,
    and what is evaluated is the present structure.
    """
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            copy = hook.ema_model.module
            copy.mutator = algorithm.mutator
            copy.structure = algorithm.structure


@contextmanager
def validated_weights(runner: Runner) -> Iterator[None]:
    """Give the model the weights that a validation uses, for a while.

    With an ``EMAHook`` these are the averaged ones.
    """
    with ExitStack() as stack:
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.before_val_epoch(runner)
                stack.callback(hook.after_val_epoch, runner)
        yield
