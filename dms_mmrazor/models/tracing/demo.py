"""Run a model once on an input of the shape it will be used with."""

from contextlib import contextmanager
from typing import Any, Iterator, Mapping, Sequence, Tuple

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.ops.decoders import vocabulary_of
from dms_mmrazor.models.tracing.light_copy import is_lifeless
from dms_mmrazor.models.tracing.two_stage import (
    demo_regions,
    is_two_stage,
    two_stage_tensors,
)

_SMALL = 128
"""Side of a small image: what usual networks divide without a rest."""

_KERNEL = 'activation_relu_or_gelu'
"""Number by which such a layer chooses a kernel of its own, 0 for none."""


def demo_tensor(model: nn.Module, shape: Any) -> Tensor:
    """A fixed pseudo-random image batch on the model's device.

    Args:
        model (nn.Module): The model that will see it.
        shape (tuple): (B, C, H, W).
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(tuple(shape), generator=generator)
    parameter = next(model.parameters(), None)
    vocabulary = vocabulary_of(model)
    if vocabulary and len(shape) == 2:
        tokens = torch.randint(vocabulary, tuple(shape), generator=generator)
        return tokens.to(parameter.device)
    return image if parameter is None else image.to(parameter)


def forward_tensors(
    model: nn.Module, image: Tensor, few_regions: bool = False
) -> Any:
    """Outputs of the network before losses or post-processing.

    Args:
        model (nn.Module): The model.
        image (Tensor): [B, C, H, W].
        few_regions (bool): Give the second stage of a two-stage detector
            fewer regions than in a test, where their number does not
            matter. Defaults to False.
    """
    if is_two_stage(model):
        regions = demo_regions(model, image.shape, few_regions)
        return two_stage_tensors(model, image, regions)
    if isinstance(model, BaseModel):
        return model(image, None, mode='tensor')
    if vocabulary_of(model):
        return _token_logits(model, image)
    return model(image)


def _token_logits(model: nn.Module, tokens: Tensor) -> Any:
    """Logits of tokens; keys and values have other shapes in a subnet."""
    outputs = model(input_ids=tokens, use_cache=False)
    return getattr(outputs, 'logits', outputs)


def limit_sides(shape: Sequence[int], most: int) -> Tuple[int, ...]:
    """(B, C, H, W) with at most so many pixels in height and width."""
    return (*shape[:2], *(min(side, most) for side in shape[2:]))


def small_shape(model: nn.Module, shape: Sequence[int]) -> Tuple[int, ...]:
    """Shape of a small demo input, where a model takes another size.

    What a block does, and statistics of norms, show on small images, too.

    Args:
        model (nn.Module): A throw-away copy of a model.
        shape (Sequence[int]): (B, C, H, W) of the demo input.

    Returns:
        tuple[int, ...]: (B, C, h, w) with at most 128 x 128 pixels;
        ``shape`` if that is smaller or the model does not run on less.
    """
    small = limit_sides(shape, _SMALL)
    if small == tuple(shape):
        return small
    try:
        with evaluating(model):
            forward_tensors(model, demo_tensor(model, small), True)
    except Exception:  # whatever a module's code may raise
        return tuple(shape)
    return small


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's mode comes back.

    Encoder layers of torch call their modules nevertheless, which are
    looked at; on torch < 2 a hook does not tell them to.
    """
    states = [
        (m, m.training, m.__dict__.get(_KERNEL)) for m in model.modules()
    ]
    model.eval()
    try:
        for module, _, kernel in states:
            if kernel is not None:
                module.__dict__[_KERNEL] = 0
        with torch.no_grad():
            yield
    finally:
        for module, mode, kernel in states:
            module.training = mode
            if kernel is not None:
                module.__dict__[_KERNEL] = kernel


@torch.no_grad()
def enliven(model: nn.Module, shape: Any) -> None:
    """Give a fresh model statistics and vectors of a trained one's kind.

    In a model that was just built signals die within a few layers (its
    norms have no statistics), and zero-initialized norms, layer scales or
    heads hide whole branches: nothing could be told from its outputs.

    Args:
        model (nn.Module): A throw-away copy; its norms, all parameters with
            at most one dimension and all constant ones change.
        shape (tuple): (B, C, H, W) of a demo input.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() <= 1:
            values = torch.rand(parameter.shape, generator=generator)
            parameter.copy_(0.5 + values)
        elif is_lifeless(parameter):
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(values / parameter[0].numel() ** 0.5)
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    for module in norms:
        module.train()
        module.momentum = 1.0
    # Two images: a norm in training mode needs two values per channel.
    forward_tensors(model, demo_tensor(model, (2, *shape[1:])), True)
    for module, mode in modes:
        module.training = mode


def check_input(key: str, shape: Any) -> None:
    """Raise DMSError for a demo input that is no shape.

    Args:
        key (str): Where a config says it, for the message.
        shape (Any): (B, C, H, W) or the like; a config of one of mmrazor's
            demo inputs passes.
    """
    if isinstance(shape, Mapping) or hasattr(shape, 'input_shape'):
        return
    several = isinstance(shape, (tuple, list)) and len(shape) > 1
    if several and all(type(side) is int and side > 0 for side in shape):
        return
    side = shape if type(shape) is int and shape > 0 else 224
    raise DMSError(
        f'`{key}` must be the shape (B, C, H, W) of an input, got {shape!r}: '
        f'write `(1, 3, {side}, {side})` for images of {side} x {side}.'
    )
