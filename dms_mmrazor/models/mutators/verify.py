"""Prove on a random structure that masking and cutting are the same."""

from typing import Any, List

import torch
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.subnet import Structure, prune
from dms_mmrazor.models.tracing.demo import (
    demo_tensor,
    enliven,
    evaluating,
    forward_tensors,
)

TOLERANCE = 1e-4

_HINT = (
    'the tracer misunderstands how this model ties its channels. Exclude the '
    'layers around the module in question by `mutator.exclude`, and please '
    'report the model.'
)


def flatten_tensors(outputs: Any) -> List[Tensor]:
    """All tensors of nested outputs, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        outputs = outputs.values()
    if hasattr(outputs, '__iter__') and not isinstance(outputs, str):
        return [t for part in outputs for t in flatten_tensors(part)]
    return []


def max_difference(
    masked: nn.Module, plain: nn.Module, image: Tensor
) -> float:
    """Largest difference of two models' outputs, relative to their scale.

    Args:
        masked (nn.Module): A supernet with hard masks.
        plain (nn.Module): Its exported subnet.
        image (Tensor): Input [B, C, H, W].

    Returns:
        float: max |a - b| / max(max |b|, 1e-6) over all outputs; inf if
        their shapes differ.
    """
    with evaluating(masked), evaluating(plain):
        pairs = list(
            zip(
                flatten_tensors(forward_tensors(masked, image)),
                flatten_tensors(forward_tensors(plain, image)),
            )
        )
    worst = 0.0
    for a, b in pairs:
        if a.shape != b.shape:
            return float('inf')
        scale = max(float(b.abs().max()), 1e-6)
        worst = max(worst, float((a - b).abs().max()) / scale)
    return worst


def verify_supernet(
    supernet: nn.Module,
    plain: nn.Module,
    structure: Structure,
    input_size: Any,
) -> float:
    """Compare the masked supernet with the subnet cut from its copy.

    Args:
        supernet (nn.Module): With the hard masks of ``structure``; its
            state is the same afterwards.
        plain (nn.Module): A plain copy; it is cut.
        structure (Structure): What to keep.
        input_size (tuple): (B, C, H, W).

    Returns:
        float: The largest relative difference.

    Raises:
        DMSError: If they differ, or the subnet does not run: something in
            the model ties channels in a way that the tracer cannot see.
    """
    enliven(plain, input_size)
    state = {k: v.clone() for k, v in supernet.state_dict().items()}
    supernet.load_state_dict(plain.state_dict())
    try:
        prune(plain, structure)
        image = demo_tensor(plain, input_size)
        difference = max_difference(supernet, plain, image)
    except (RuntimeError, IndexError, ValueError) as error:
        raise DMSError(
            f'a random subnet does not run ({error}): {_HINT}'
        ) from error
    finally:
        supernet.load_state_dict(state)
    if not difference <= TOLERANCE:
        raise DMSError(
            'a random subnet computes something else than the masked '
            f'supernet (relative difference {difference:.1e}): {_HINT}'
        )
    return difference


def randomize(importance: Tensor, seed: int) -> None:
    """Random importances, so that random channels are kept."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(importance.shape, generator=generator)
    importance.copy_(values)
