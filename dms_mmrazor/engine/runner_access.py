"""What the hooks of a search read off a runner."""

import os.path as osp
from typing import Any, Dict, Mapping, Optional

from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner
from torch import Tensor

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.search.export import how_found
from dms_mmrazor.search.loss_scale import scale_of
from dms_mmrazor.yaml_files import plain_value


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
