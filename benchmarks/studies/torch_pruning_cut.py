"""Widths cut by Torch-Pruning (requirements/benchmarks.txt), to compare.

Its ``MagnitudePruner`` with L1 norms of groups, globally, in small steps until
the MACs are reached; the last layer stays.
"""

from typing import Any, List, Sequence, Tuple

import torch
from torch import nn

STEPS = 500


def cut(
    model: nn.Module, macs: float, size: Sequence[int]
) -> Tuple[nn.Module, List[Any], float]:
    """Cut a trained model.

    Args:
        model (nn.Module): Plain; it changes.
        macs (float): At most so many are left, of one image.
        size (Sequence[int]): Of an input.

    Returns:
        tuple: The model, what :func:`replay` needs to repeat it, its MACs.
    """
    import torch_pruning as tp

    from dms_mmrazor.graph import count_macs

    example = torch.rand(*size)
    head = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    pruner = tp.pruner.MagnitudePruner(
        model.eval(),
        example,
        importance=tp.importance.MagnitudeImportance(p=1),
        global_pruning=True,
        iterative_steps=STEPS,
        pruning_ratio=1.0,
        max_pruning_ratio=0.95,
        ignored_layers=[head],
    )
    for _ in range(STEPS):
        if count_macs(model, size) <= macs:
            break
        pruner.step()
    left = float(count_macs(model, size))
    return model, pruner.pruning_history(), left


def replay(
    model: nn.Module, history: Sequence[Any], size: Sequence[int]
) -> nn.Module:
    """Cut a network of the same kind in the same way; weights are its own."""
    import torch_pruning as tp

    graph = tp.DependencyGraph().build_dependency(model, torch.rand(*size))
    graph.load_pruning_history(history)
    return model
