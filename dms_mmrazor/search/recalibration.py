"""Statistics of batch norms for a structure that was not trained alone.

Subnets of a supernet share weights, not statistics: those of the supernet's
own passes are of other features.
"""

from typing import Any, Callable, Iterable, List

import torch
from mmengine import dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dms_mmrazor.graph.demo import keeping_modes


def has_statistics(model: nn.Module) -> bool:
    """Whether there is a batch norm whose statistics could be computed."""
    return bool(_norms(model))


def _norms(model: nn.Module) -> List[_BatchNorm]:
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


@torch.no_grad()
def recalibrate_norms(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[Any], Any],
) -> int:
    """Compute running means and variances anew, weights as they are.

    Every batch counts alike; everything but the norms is in evaluation
    mode. Buffers are new tensors, so that a model that shares them with the
    one it was cut from leaves that one alone. Ranks get the mean of theirs.

    Args:
        model (nn.Module): A plain model.
        batches (Iterable): Batches of training data.
        forward (Callable): Calls the model on a batch.

    Returns:
        int: Number of norms; 0: nothing was run.
    """
    norms = _norms(model)
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    with keeping_modes(model):
        model.eval()
        for norm in norms:
            norm.running_mean = torch.zeros_like(norm.running_mean)
            norm.running_var = torch.ones_like(norm.running_var)
            counted = torch.zeros_like(norm.num_batches_tracked)
            norm.num_batches_tracked = counted
            norm.momentum = None  # the mean of all batches
            norm.train()
        for batch in batches:
            forward(batch)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
        if dist.get_world_size() > 1:
            dist.all_reduce(norm.running_mean, op='mean')
            dist.all_reduce(norm.running_var, op='mean')
    return len(norms)
