"""Find the removable residual blocks of a plain model by trying them.

A block x + f(x) can be removed if its output equals its input once f is
silenced; that is a fact about the block's arithmetic, whatever its code or
names look like, so it is tested on the block itself. Contiguous removable
blocks of one ``Sequential`` are a stage (paper, appendix A.1.1).
"""

from copy import deepcopy
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from mmengine.model.utils import revert_sync_batchnorm
from torch import Tensor, nn

from dms_mmrazor.models.ops import DYNAMIC_OPS
from dms_mmrazor.models.tracing.demo import (
    demo_tensor,
    enliven,
    evaluating,
    forward_tensors,
)

_TOLERANCE = 1e-6


class ResidualBlock(NamedTuple):
    """A block that can be removed.

    Attributes:
        name (str): Its module name.
        carrier (str): The module at the end of f, which the depth mask
            multiplies.
        folds (bool): Whether the mask can be folded into the carrier's
            weight; otherwise its output is multiplied.
    """

    name: str
    carrier: str
    folds: bool


class ResidualStage(NamedTuple):
    """Contiguous removable blocks.

    Attributes:
        name (str): Name of the container.
        blocks (tuple[ResidualBlock]): In the order of the forward pass.
        fixed (int): Blocks of the container that are always kept.
    """

    name: str
    blocks: Tuple[ResidualBlock, ...]
    fixed: int


def find_stages(
    model: nn.Module, input_size: Tuple[int, ...]
) -> List[ResidualStage]:
    """Stages of removable residual blocks.

    Args:
        model (nn.Module): A plain model; it is not changed.
        input_size (tuple): (B, C, H, W) of a demo input.

    Returns:
        list[ResidualStage]: In the order of the model's modules.
    """
    model = revert_sync_batchnorm(deepcopy(model))
    enliven(model, input_size)
    with evaluating(model):
        inputs = _block_inputs(model, input_size)
        stages = []
        for name, container in model.named_modules():
            if isinstance(container, nn.Sequential):
                stages += _stages_of(name, container, inputs)
    return stages


def _block_inputs(
    model: nn.Module, input_size: Tuple[int, ...]
) -> Dict[nn.Module, Tensor]:
    """Inputs of modules that run once and keep the shape of their input."""
    inputs: Dict[nn.Module, Optional[Tensor]] = {}

    def record(module: nn.Module, args: Tuple[Any, ...], output: Any) -> None:
        fits = (
            module not in inputs
            and len(args) == 1
            and isinstance(args[0], Tensor)
            and isinstance(output, Tensor)
            and args[0].shape == output.shape
        )
        inputs[module] = args[0].clone() if fits else None

    candidates = [
        child
        for container in model.modules()
        if isinstance(container, nn.Sequential)
        for child in container.children()
        if any(True for _ in child.children())
    ]
    # Inputs must be cloned before a block changes them in place.
    for module in model.modules():
        if hasattr(module, 'inplace'):
            module.inplace = False
    handles = [c.register_forward_hook(record) for c in candidates]
    forward_tensors(model, demo_tensor(model, input_size))
    for handle in handles:
        handle.remove()
    return {m: x for m, x in inputs.items() if x is not None}


def _stages_of(
    name: str, container: nn.Sequential, inputs: Dict[nn.Module, Tensor]
) -> List[ResidualStage]:
    """Runs of removable blocks in one container."""
    runs: List[List[ResidualBlock]] = [[]]
    for child_name, child in container.named_children():
        block = None
        if child in inputs:
            block = _residual_block(
                f'{name}.{child_name}', child, inputs[child]
            )
        if block is not None:
            runs[-1].append(block)
        elif runs[-1]:
            runs.append([])
    runs = [run for run in runs if run]
    removable = sum(len(run) for run in runs)
    fixed = len(container) - removable
    if len(runs) == 1:
        return [ResidualStage(name, tuple(runs[0]), fixed)]
    return [ResidualStage(run[0].name, tuple(run), fixed) for run in runs]


def _residual_block(
    name: str, block: nn.Module, x: Tensor
) -> Optional[ResidualBlock]:
    """The block with its carrier, or ``None`` if it cannot be removed."""
    if _close(block(x), x):
        return None
    silent = [m for m in _candidates(block, x) if _is_identity(block, m, x)]
    if not silent:
        return None
    names = {module: child for child, module in block.named_modules()}
    carrier = silent[0]
    expected = _forward_scaled(block, carrier, 0.5, x)
    foldable = [
        module
        for module in silent
        if type(module) in DYNAMIC_OPS
        and _close(_forward_scaled(block, module, 0.5, x), expected)
    ]
    if foldable:
        carrier = foldable[0]
    return ResidualBlock(name, f'{name}.{names[carrier]}', bool(foldable))


def _candidates(block: nn.Module, x: Tensor) -> List[nn.Module]:
    """Modules that could end f: last first, each called once."""
    calls: List[nn.Module] = []

    def record(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.shape == x.shape:
            calls.append(module)

    inner = [m for m in block.modules() if m is not block]
    handles = [m.register_forward_hook(record) for m in inner]
    block(x)
    for handle in handles:
        handle.remove()
    return [m for m in reversed(calls) if calls.count(m) == 1]


def _forward_scaled(
    block: nn.Module, module: nn.Module, factor: float, x: Tensor
) -> Tensor:
    """Output of a block in which one module's output is scaled."""

    def scale(_: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output * factor

    handle = module.register_forward_hook(scale)
    try:
        return block(x)
    finally:
        handle.remove()


def _is_identity(block: nn.Module, module: nn.Module, x: Tensor) -> bool:
    return _close(_forward_scaled(block, module, 0.0, x), x)


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    scale = torch.max(b.abs().max(), torch.ones_like(b.flatten()[0]))
    return bool((a - b).abs().max() <= _TOLERANCE * scale)
