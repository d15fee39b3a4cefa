"""The pruning ratios' group in an optimizer, which no schedule touches."""

from typing import Any, Dict, Iterator, Optional

from mmengine.optim import OptimWrapper
from torch.optim import Optimizer

from dms_mmrazor.errors import DMSError

LR = 'structure_lr'
"""Where a group of an optimizer has the learning rate of pruning ratios."""


def mark_structure_group(group: Dict[str, Any], lr: float) -> None:
    """Make a group known as that of the pruning ratios.

    Args:
        group (dict): Of an optimizer, with its options; changed in place.
        lr (float): Learning rate of the pruning ratios.
    """
    group[LR] = lr


def check_structure_group(
    wrapper: OptimWrapper, lr: Optional[float] = None
) -> None:
    """Raise unless the pruning ratios have a group of their own.

    Args:
        wrapper (OptimWrapper): Of a search.
        lr (float, optional): Learning rate to use from now on. Defaults to
            None, the group's own.

    Raises:
        DMSError: If another constructor has built the optimizer.
    """
    groups = list(structure_groups(wrapper.optimizer))
    if not groups:
        raise DMSError(
            'the optimizer has no group for the pruning ratios: '
            '`optim_wrapper.constructor` must be '
            'mmrazor.DMSOptimWrapperConstructor. If the weights need '
            'another constructor (mmyolo: YOLOv5OptimizerConstructor), name '
            'it in `optim_wrapper.paramwise_cfg.constructor`.'
        )
    for group in groups:
        if lr is not None:
            group[LR] = lr


def restore_structure_group(wrapper: OptimWrapper) -> None:
    """Undo what schedules of the weights did to the pruning ratios' group.

    Schedulers set learning rates of all groups, mmyolo's warm-up even in
    every iteration. Other options have no meaning for this group.
    """
    for group in structure_groups(wrapper.optimizer):
        group['lr'] = group[LR]


def structure_groups(optimizer: Optimizer) -> Iterator[Dict[str, Any]]:
    """The groups of an optimizer that have pruning ratios, one in a search."""
    for group in optimizer.param_groups:
        if LR in group:
            yield group
